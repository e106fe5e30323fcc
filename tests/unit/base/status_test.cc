#include "agent/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/harness/status_matchers.h"

namespace metal::base {
namespace {

using ::testing::Eq;
using testing::StatusIs;

struct ErrnoRow {
  int error;
  absl::StatusCode code;
};

TEST(StatusTest, ErrnoTable) {
  const ErrnoRow rows[] = {
      {EIO, absl::StatusCode::kDataLoss},
      {EILSEQ, absl::StatusCode::kDataLoss},
      {ENODATA, absl::StatusCode::kDataLoss},
      {ENODEV, absl::StatusCode::kDataLoss},
      {ENXIO, absl::StatusCode::kDataLoss},
      {ENOMEDIUM, absl::StatusCode::kDataLoss},
      {EROFS, absl::StatusCode::kFailedPrecondition},
      {EBUSY, absl::StatusCode::kFailedPrecondition},
      {ENOTEMPTY, absl::StatusCode::kFailedPrecondition},
      {ENOSPC, absl::StatusCode::kResourceExhausted},
      {EDQUOT, absl::StatusCode::kResourceExhausted},
      {ETIMEDOUT, absl::StatusCode::kDeadlineExceeded},
      {ENOENT, absl::StatusCode::kNotFound},
      {EEXIST, absl::StatusCode::kAlreadyExists},
      {EACCES, absl::StatusCode::kPermissionDenied},
      {EINVAL, absl::StatusCode::kInvalidArgument},
  };
  for (const ErrnoRow& row : rows) EXPECT_EQ(ErrnoCode(row.error), row.code) << row.error;
}

TEST(StatusTest, ErrnoStatusNamesOperationObjectAndCause) {
  EXPECT_THAT(ErrnoStatus(EIO, "read", "base/1/2"),
              StatusIs(absl::StatusCode::kDataLoss, Eq("read base/1/2: Input/output error")));
}

TEST(StatusTest, AnnotatePrependsAndKeepsCodeAndPayloads) {
  absl::Status status =
      WithReason(Error(absl::StatusCode::kAborted, "inner"), {"BUSY", {{"holder", "backup"}}});
  status.SetPayload("other", absl::Cord("kept"));
  const absl::Status annotated = Annotate(status, "outer");
  EXPECT_THAT(annotated, StatusIs(absl::StatusCode::kAborted, Eq("outer: inner")));
  ASSERT_TRUE(GetReason(annotated).has_value());
  EXPECT_EQ(GetReason(annotated)->reason, "BUSY");
  EXPECT_EQ(GetReason(annotated)->metadata.at("holder"), "backup");
  EXPECT_EQ(annotated.GetPayload("other"), absl::Cord("kept"));
}

TEST(StatusTest, AnnotateOfOkIsOk) { EXPECT_OK(Annotate(absl::OkStatus(), "outer")); }

TEST(StatusTest, LaterReasonReplacesTheEarlier) {
  const absl::Status status =
      WithReason(WithReason(absl::UnknownError("x"), {"FIRST", {{"a", "1"}}}), {"SECOND", {}});
  EXPECT_EQ(GetReason(status)->reason, "SECOND");
  EXPECT_TRUE(GetReason(status)->metadata.empty());
}

TEST(StatusTest, ReasonValuesMayHoldEqualSigns) {
  const absl::Status status =
      WithReason(absl::UnknownError("x"), {"R", {{"setting", "a=b=c"}, {"empty", ""}}});
  EXPECT_EQ(GetReason(status)->metadata.at("setting"), "a=b=c");
  EXPECT_EQ(GetReason(status)->metadata.at("empty"), "");
}

TEST(StatusTest, StatusWithoutReasonHasNone) {
  EXPECT_FALSE(GetReason(absl::UnknownError("x")).has_value());
  EXPECT_FALSE(GetReason(absl::OkStatus()).has_value());
}

absl::StatusOr<int> Half(int number) {
  if (number % 2 != 0) return Error(absl::StatusCode::kInvalidArgument, "{} is odd", number);
  return number / 2;
}
absl::StatusOr<int> Quarter(int number) {
  METAL_ASSIGN_OR_RETURN(const int half, Half(number));
  METAL_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

TEST(StatusTest, MacrosReturnTheFirstError) {
  EXPECT_THAT(Quarter(12), testing::IsOkAndHolds(3));
  EXPECT_THAT(Quarter(6), StatusIs(absl::StatusCode::kInvalidArgument, Eq("3 is odd")));
}

}  // namespace
}  // namespace metal::base
