#include "agent/node/rewind/ancestry.h"

#include "agent/base/status.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;

WalPosition At(base::TimelineId timeline, uint64_t lsn, std::vector<TimelineSwitch> history = {}) {
  WalPosition position;
  position.timeline = timeline;
  position.received = position.replayed = base::Lsn{lsn};
  position.history = std::move(history);
  return position;
}

TEST(AncestryTest, TheSameTimelineIsFollowedWhereverItStands) {
  EXPECT_OK(CheckAncestry(At(1, 100), At(1, 200)));
  EXPECT_OK(CheckAncestry(At(1, 200), At(1, 200)));
}

TEST(AncestryTest, AnOlderTimelineIsFollowedUpToTheFork) {
  const WalPosition source = At(3, 500, {{1, base::Lsn{100}}, {2, base::Lsn{300}}});
  EXPECT_OK(CheckAncestry(At(1, 100), source));
  EXPECT_OK(CheckAncestry(At(2, 300, {{1, base::Lsn{100}}}), source));
  EXPECT_EQ(FindFork(At(1, 100), source).lsn, base::Lsn{100});
}

TEST(AncestryTest, WalBeyondTheForkHasDiverged) {
  const WalPosition source = At(2, 500, {{1, base::Lsn{100}}});
  const absl::Status status = CheckAncestry(At(1, 101), source);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               ::testing::HasSubstr("parted on timeline 1 at 0/64")));
  EXPECT_EQ(base::GetReason(status)->reason, "DIVERGED");
  EXPECT_EQ(base::GetReason(status)->metadata.at("fork_lsn"), "0/64");
}

TEST(AncestryTest, ReceivedWalThatIsNotReplayedCounts) {
  WalPosition position = At(1, 90);
  position.received = base::Lsn{101};
  EXPECT_FALSE(CheckAncestry(position, At(2, 500, {{1, base::Lsn{100}}})).ok());
}

TEST(AncestryTest, ANewerTimelineThanTheSourcesHasDiverged) {
  EXPECT_FALSE(CheckAncestry(At(2, 100, {{1, base::Lsn{100}}}), At(1, 500)).ok());
}

TEST(AncestryTest, TwoTimelinesOfTheSameNumberButAnotherForkHaveDiverged) {
  const WalPosition here = At(2, 150, {{1, base::Lsn{100}}});
  const WalPosition there = At(2, 500, {{1, base::Lsn{120}}});
  EXPECT_FALSE(CheckAncestry(here, there).ok());
  EXPECT_EQ(FindFork(here, there).timeline, 1u);
  EXPECT_EQ(FindFork(here, there).lsn, base::Lsn{100});
}

TEST(AncestryTest, ACopyWithoutItsHistoryFileFollowsWhoeverHasItsTimeline) {
  const WalPosition source = At(3, 500, {{1, base::Lsn{100}}, {2, base::Lsn{300}}});
  EXPECT_OK(CheckAncestry(At(3, 400), source));
  EXPECT_OK(CheckAncestry(At(2, 300), source));
  EXPECT_FALSE(CheckAncestry(At(2, 301), source).ok());
  EXPECT_EQ(FindFork(At(4, 10), source).timeline, 0u);
}

TEST(AncestryTest, NoCommonTimeline) {
  const Fork fork = FindFork(At(5, 10, {{4, base::Lsn{5}}}), At(7, 10, {{6, base::Lsn{5}}}));
  EXPECT_EQ(fork.timeline, 0u);
}

}  // namespace
}  // namespace metal::node
