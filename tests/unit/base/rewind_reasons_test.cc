#include "agent/base/rewind_reasons.h"

#include "gtest/gtest.h"

namespace metal::base {
namespace {

absl::Status RefusedFor(const char* reason) {
  return WithReason(absl::FailedPreconditionError("refused. HINT: test"), {reason, {}});
}

TEST(RewindReasonsTest, FiveReasonsSayThatNoRewindHelps) {
  for (const char* reason : {"REWIND_REFUSED", "WAL_MISSING", "NO_SPACE", "HISTORY_DIVERGED",
                             "DATA_DIRECTORY_INCOMPLETE"}) {
    EXPECT_TRUE(NoRewindHelps(RefusedFor(reason))) << reason;
    EXPECT_TRUE(NoRewindHelps(Annotate(RefusedFor(reason), "rewind"))) << reason;
  }
}

TEST(RewindReasonsTest, WhatMayBeTheSourcesFaultOrPassesIsNoneOfThem) {
  for (const char* reason : {"DIVERGED", "REWIND_SOURCE", "STALE_TERM", "ACTION_IN_PROGRESS",
                             "AGENT_RESTARTED", "CANCELLED"}) {
    EXPECT_FALSE(NoRewindHelps(RefusedFor(reason))) << reason;
  }
  EXPECT_FALSE(NoRewindHelps(absl::UnavailableError("no answer")));
  EXPECT_FALSE(NoRewindHelps(absl::OkStatus()));
}

}  // namespace
}  // namespace metal::base
