#include "agent/rpc/handler.h"

#include <functional>
#include <string>
#include <string_view>

#include "agent/base/status.h"
#include "agent/recorder/ring_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metal/agent/v1/postgres_service.pb.h"
#include "metal/agent/v1/replication_service.pb.h"
#include "tests/harness/temp_dir.h"

namespace metal::rpc {
namespace {

namespace v1 = ::metal::agent::v1;

TEST(RequestContextTest, TheRequestIdIsNotPartOfTheBody) {
  v1::ApplyConfigRequest a;
  a.set_request_id("one");
  (*a.mutable_settings())["work_mem"] = "4MB";
  v1::ApplyConfigRequest b = a;
  b.set_request_id("two");
  EXPECT_EQ(MakeRequestContext(a, "one", "unix").body_hash,
            MakeRequestContext(b, "two", "unix").body_hash);
}

TEST(RequestContextTest, TheRequestIdInsideATermHeaderIsNotPartOfTheBody) {
  v1::PromoteRequest a;
  a.mutable_header()->set_term(3);
  a.mutable_header()->set_request_id("one");
  v1::PromoteRequest b = a;
  b.mutable_header()->set_request_id("two");
  EXPECT_EQ(MakeRequestContext(a, "one", "u").body_hash,
            MakeRequestContext(b, "two", "u").body_hash);
  b.mutable_header()->set_term(4);
  EXPECT_NE(MakeRequestContext(a, "one", "u").body_hash,
            MakeRequestContext(b, "two", "u").body_hash);
}

TEST(RequestContextTest, TheOrderOfMapEntriesDoesNotMatter) {
  v1::ApplyConfigRequest a;
  v1::ApplyConfigRequest b;
  for (int i = 0; i < 50; ++i) (*a.mutable_settings())["name" + std::to_string(i)] = "x";
  for (int i = 49; i >= 0; --i) (*b.mutable_settings())["name" + std::to_string(i)] = "x";
  EXPECT_EQ(MakeRequestContext(a, "", "u").body_hash, MakeRequestContext(b, "", "u").body_hash);
}

TEST(RequestContextTest, EqualBytesOfDifferentRequestsDiffer) {
  v1::StartPostgresRequest start;
  v1::ReloadConfigRequest reload;
  EXPECT_NE(MakeRequestContext(start, "", "u").body_hash,
            MakeRequestContext(reload, "", "u").body_hash);
}

// Runs `count` calls of `rpc`, each inside the one before; answers the innermost one's status.
grpc::Status RunNested(const Handler& handler, std::string_view rpc, int count,
                       const std::function<void()>& innermost) {
  const grpc::ServerContext context;
  grpc::Status inner;
  const grpc::Status outer = handler.Run(rpc, context, [&](const std::string&) {
    if (count > 1) {
      inner = RunNested(handler, rpc, count - 1, innermost);
    } else {
      innermost();
    }
    return absl::OkStatus();
  });
  return outer.ok() ? inner : outer;
}

TEST(HandlerTest, TooManyCallsOfOnePaceAreRefusedAndInstantOnesNever) {
  const AccessControl access({});
  const Handler handler(access);
  constexpr std::string_view kAct = "PostgresService/GetControlData";
  constexpr std::string_view kWatch = "HostService/WatchStatus";
  constexpr std::string_view kInstant = "HostService/GetStatus";
  constexpr std::string_view kOrder = "ReplicationService/Fence";
  EXPECT_TRUE(RunNested(handler, kAct, kActsAtOnce, [&] {
                EXPECT_TRUE(RunNested(handler, kOrder, kOrdersAtOnce, [] {}).ok());
                EXPECT_TRUE(RunNested(handler, "OperationsService/CancelOperation", 1, [] {}).ok());
              }).ok());
  EXPECT_EQ(RunNested(handler, kOrder, kOrdersAtOnce + 1, [] {}).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(RunNested(handler, kAct, kActsAtOnce + 1, [] {}).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  bool reached = false;
  EXPECT_TRUE(RunNested(handler, kWatch, kWatchesAtOnce, [&] {
                reached = true;
                EXPECT_EQ(RunNested(handler, kWatch, 1, [] {}).error_code(),
                          grpc::StatusCode::RESOURCE_EXHAUSTED);
                EXPECT_TRUE(RunNested(handler, kAct, 1, [] {}).ok());
                EXPECT_TRUE(RunNested(handler, kInstant, 200, [] {}).ok());
                EXPECT_TRUE(RunNested(handler, kOrder, 1, [] {}).ok());
              }).ok());
  EXPECT_TRUE(reached);
  EXPECT_TRUE(RunNested(handler, kAct, 1, [] {}).ok());  // every place was given back
}

TEST(HandlerTest, EachCallIsRecordedWithItsTermAndWhatCameOfIt) {
  const testing::TempDir dir;
  const AccessControl access({});
  recorder::Recorder recorder({.path = dir.File("ring"), .size = {base::kMiB}}, base::RealClock());
  const Handler handler(access, &recorder);
  const grpc::ServerContext context;
  v1::PromoteRequest promote;
  promote.mutable_header()->set_term(7);
  handler.Run("ReplicationService/Promote", context, promote,
              [](const std::string&) { return absl::OkStatus(); });
  handler.Run("PostgresService/ReloadConfig", context, [](const std::string&) {
    return base::WithReason(absl::FailedPreconditionError("no server"), {"POSTGRES_DOWN", {}});
  });
  handler.Run("Nobody/Knows", context, [](const std::string&) { return absl::OkStatus(); });
  ASSERT_TRUE(recorder.Flush(absl::Seconds(30)));
  std::vector<recorder::Record> calls;
  ASSERT_TRUE(recorder::ReadRing(recorder.path(), [&](const recorder::Record& record) {
                calls.push_back(record);
                return true;
              }).ok());
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_EQ(calls[0].Find("rpc"), "ReplicationService/Promote");
  EXPECT_EQ(calls[0].Find("term"), "7");
  EXPECT_EQ(calls[0].Find("code"), "OK");
  EXPECT_NE(calls[0].Find("duration_us"), "");
  EXPECT_EQ(calls[1].Find("term"), "");
  EXPECT_EQ(calls[1].Find("reason"), "POSTGRES_DOWN");
  EXPECT_EQ(calls[1].Find("message"), "no server");
  EXPECT_EQ(calls[2].Find("code"), "PERMISSION_DENIED") << "who was refused is recorded too";
}

TEST(HandlerTest, ATimeoutOfOursNamesTheCallAndTheNextStep) {
  const AccessControl access({});
  const Handler handler(access);
  const grpc::ServerContext context;
  const auto answer = [&](const absl::Status& status) {
    return handler.Run("PostgresService/ReloadConfig", context,
                       [&](const std::string&) { return status; });
  };
  const grpc::Status bare = answer(
      base::WithReason(absl::DeadlineExceededError("timed out"), {"SLOW", {{"query", "select"}}}));
  EXPECT_EQ(bare.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(bare.error_message(),
              ::testing::StartsWith("PostgresService/ReloadConfig: timed out"));
  EXPECT_THAT(bare.error_message(), ::testing::HasSubstr("HINT: "));
  EXPECT_THAT(bare.error_details(), ::testing::HasSubstr("SLOW"));
  const std::string own = "stop postgres: it still runs. HINT: wait";
  EXPECT_EQ(answer(absl::DeadlineExceededError(own)).error_message(), own);
  EXPECT_EQ(answer(absl::NotFoundError("no such thing")).error_message(), "no such thing");
}

}  // namespace
}  // namespace metal::rpc
