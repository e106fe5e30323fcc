#include "tools/metalctl/error.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/metalctl/client.h"

namespace metal::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

// One length-delimited field of a protobuf message shorter than 128 bytes.
std::string Field(int number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  out += static_cast<char>(bytes.size());
  return out + bytes;
}

grpc::Status WithErrorInfo(grpc::StatusCode code, const std::string& message) {
  const std::string info = Field(1, "STALE_TERM") + Field(2, "metal.agent") +
                           Field(3, Field(1, "stored_term") + Field(2, "8"));
  const std::string any = Field(1, "type.googleapis.com/google.rpc.ErrorInfo") + Field(2, info);
  return {code, message, Field(2, message) + Field(3, any)};
}

TEST(ErrorTest, ReasonAndMetadataComeFromTheDetails) {
  const Error error =
      ErrorOf(WithErrorInfo(grpc::StatusCode::FAILED_PRECONDITION, "term 7 is old"));
  EXPECT_EQ(error.code, "FAILED_PRECONDITION");
  EXPECT_EQ(error.reason, "STALE_TERM");
  EXPECT_THAT(error.metadata, ElementsAre(Pair("stored_term", "8")));
}

TEST(ErrorTest, BrokenDetailsAreIgnored) {
  const Error error = ErrorOf({grpc::StatusCode::INTERNAL, "broken", std::string("\x1a\x7f", 2)});
  EXPECT_EQ(error.message, "broken");
  EXPECT_EQ(error.reason, "");
}

TEST(ErrorTest, TheHintIsApart) {
  const Error error = ErrorFrom("NOT_FOUND", "no backup. HINT: metalctl backup list");
  EXPECT_EQ(error.message, "no backup.");
  EXPECT_EQ(error.hint, "metalctl backup list");
  EXPECT_EQ(ErrorText(error), "metalctl: no backup.\nHINT: metalctl backup list\n");
}

TEST(ErrorTest, AHintNamesCommandsNotRpcs) {
  EXPECT_EQ(HintForPeople("StartPostgres first; GetStatus, then again."),
            "metalctl pg start first; metalctl status, then again.");
  EXPECT_EQ(HintForPeople("metalctl backup list"), "metalctl backup list");
  EXPECT_EQ(HintForPeople("PromoteX, xFence and Ünfence"), "PromoteX, xFence and Ünfence");
}

TEST(ErrorTest, JsonIsOneLineAndEscaped) {
  Error error = ErrorFrom("INTERNAL", "a \"quoted\"\nline \\ \x01");
  error.metadata["path"] = "C:\\";
  EXPECT_EQ(ErrorJson(error),
            R"({"error":{"code":"INTERNAL","reason":"","message":"a \"quoted\"\nline \\ \u0001",)"
            R"("hint":"","metadata":{"path":"C:\\"}}})");
}

TEST(ExitCodeTest, WhatTheAgentSaysIsNotAnAbsentAgent) {
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::UNAVAILABLE), kExitRefused);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::DEADLINE_EXCEEDED), kExitTimeout);
}

}  // namespace
}  // namespace metal::ctl
