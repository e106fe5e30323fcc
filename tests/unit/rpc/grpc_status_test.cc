#include "agent/rpc/grpc_status.h"

#include "gmock/gmock.h"
#include "google/protobuf/any.pb.h"
#include "gtest/gtest.h"

namespace metal::rpc {
namespace {

TEST(GrpcStatusTest, OkStaysOk) { EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok()); }

TEST(GrpcStatusTest, CodeAndMessageAreKept) {
  const auto status = ToGrpc(absl::ResourceExhaustedError("write pack: No space left on device"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "write pack: No space left on device");
  EXPECT_EQ(status.error_details(), "");
}

TEST(GrpcStatusTest, AReasonTravelsAsErrorInfoInsideAny) {
  const auto failed =
      base::WithReason(absl::FailedPreconditionError("term 3 is stale"),
                       {"STALE_TERM", {{"stored_term", "7"}, {"orchestrator_id", "o1"}}});
  const auto status = ToGrpc(failed);
  // google.rpc.Status: field 3 holds the Any; skip code (2 bytes) and message (2 + length bytes).
  const std::string& details = status.error_details();
  ASSERT_EQ(details.substr(0, 2), std::string("\x08\x09"));
  const size_t message = 2 + 2 + failed.message().size();
  ASSERT_LT(message + 2, details.size());
  ASSERT_EQ(static_cast<unsigned char>(details[message]), 0x1a);
  size_t at = message + 1;
  size_t length = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(details.at(at++));
    length |= static_cast<size_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) break;
  }
  google::protobuf::Any any;
  ASSERT_TRUE(any.ParseFromString(details.substr(at, length)));
  EXPECT_EQ(at + length, details.size());
  EXPECT_EQ(any.type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  EXPECT_THAT(any.value(), ::testing::HasSubstr("STALE_TERM"));
  EXPECT_THAT(any.value(), ::testing::HasSubstr("metal.agent"));
  EXPECT_THAT(any.value(), ::testing::HasSubstr("stored_term"));
}

}  // namespace
}  // namespace metal::rpc
