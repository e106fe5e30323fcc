#include "tools/metalctl/shard/wal_position.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::shard {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

WalPosition At(base::TimelineId timeline, uint64_t lsn, std::vector<TimelineSwitch> history = {}) {
  return {timeline, {lsn}, std::move(history), {}};
}

// Of the terms 1, of a, and `term`, of `node`; both on timeline 2, from 1 and from 20.
WalPosition WithTerm(WalPosition position, uint64_t term, const std::string& node) {
  position.terms = {{1, 2, {1}, "a"}, {term, 2, {20}, node}};
  return position;
}

TEST(CompareTest, ByAncestryNotByNumber) {
  EXPECT_EQ(Compare(At(1, 10), At(1, 10)), Ancestry::kSame);
  EXPECT_EQ(Compare(At(1, 9), At(1, 10)), Ancestry::kBehind);
  EXPECT_EQ(Compare(At(1, 11), At(1, 10)), Ancestry::kAhead);
  // The second forked from timeline 1 at 10.
  EXPECT_EQ(Compare(At(1, 10), At(2, 12, {{1, {10}}})), Ancestry::kBehind);
  EXPECT_EQ(Compare(At(1, 11), At(2, 12, {{1, {10}}})), Ancestry::kDiverged);
  EXPECT_EQ(Compare(At(2, 12, {{1, {10}}}), At(1, 10)), Ancestry::kAhead);
  EXPECT_EQ(Compare(At(2, 12, {{1, {10}}}), At(1, 11)), Ancestry::kDiverged);
  // Both forked, at different places, or into different timelines.
  EXPECT_EQ(Compare(At(2, 12, {{1, {10}}}), At(2, 12, {{1, {11}}})), Ancestry::kDiverged);
  EXPECT_EQ(Compare(At(2, 12, {{1, {10}}}), At(3, 12, {{1, {10}}})), Ancestry::kDiverged);
  EXPECT_EQ(Compare(At(2, 12, {{1, {10}}}), At(3, 20, {{1, {10}}, {2, {12}}})), Ancestry::kBehind);
}

TEST(CompareTest, TermsTellApartWhatTimelinesDoNot) {
  const WalPosition one = WithTerm(At(2, 30, {{1, {10}}}), 2, "a");
  const WalPosition two = WithTerm(At(2, 25, {{1, {10}}}), 3, "b");
  EXPECT_EQ(Compare(one, two), Ancestry::kDiverged);
  EXPECT_EQ(Compare(one, WithTerm(two, 2, "b")), Ancestry::kDiverged);
  EXPECT_EQ(Compare(one, WithTerm(two, 2, "a")), Ancestry::kAhead);
  // One that has not heard of a term yet is behind; of one whose terms are unknown WAL must tell.
  WalPosition before = At(2, 15, {{1, {10}}});
  before.terms = {one.terms.front()};
  EXPECT_EQ(Compare(before, one), Ancestry::kBehind);
  before.terms.clear();
  EXPECT_EQ(Compare(before, one), Ancestry::kBehind);
}

class ChooseTest : public ::testing::Test {
 protected:
  void Add(WalPosition position, bool may_lead = true, bool disk_sick = false) {
    standings_.push_back({standings_.size(), may_lead, disk_sick, std::move(position)});
  }
  absl::StatusOr<Choice> Choose(std::optional<size_t> wanted = std::nullopt) {
    return ChooseLeader(standings_, {"a", "b", "c"}, wanted);
  }
  std::vector<Standing> standings_;
};

TEST_F(ChooseTest, TheMostWalLeads) {
  Add(At(1, 10));
  Add(At(1, 12));
  Add(At(1, 11));
  ASSERT_OK_AND_ASSIGN(const Choice choice, Choose());
  EXPECT_EQ(choice.leader, 1u);
  EXPECT_EQ(choice.ahead, std::nullopt);
  EXPECT_THAT(choice.diverged, IsEmpty());
}

TEST_F(ChooseTest, ANewerTimelineBeatsMoreWalOnAnOlderOne) {
  Add(At(1, 99));  // the old primary wrote on, for itself
  Add(At(2, 12, {{1, {10}}}));
  Add(At(1, 10));
  ASSERT_OK_AND_ASSIGN(const Choice choice, Choose());
  EXPECT_EQ(choice.leader, 1u);
  EXPECT_THAT(choice.diverged, ElementsAre(0));
}

TEST_F(ChooseTest, WhoIsWantedLeadsAfterItTookOverWhatItLacks) {
  Add(At(1, 10));
  Add(At(1, 12));
  ASSERT_OK_AND_ASSIGN(const Choice choice, Choose(0));
  EXPECT_EQ(choice.leader, 0u);
  EXPECT_EQ(choice.ahead, 1u);
}

TEST_F(ChooseTest, WalOfANodeThatMayNotLeadIsTakenOver) {
  Add(At(1, 12), false);
  Add(At(1, 10));
  Add(At(1, 11));
  ASSERT_OK_AND_ASSIGN(const Choice choice, Choose());
  EXPECT_EQ(choice.leader, 2u);
  EXPECT_EQ(choice.ahead, 0u);
}

TEST_F(ChooseTest, AmongEqualsAHealthyDiskThenTheFirst) {
  Add(At(1, 10), true, true);
  Add(At(1, 10));
  Add(At(1, 10));
  ASSERT_OK_AND_ASSIGN(const Choice choice, Choose());
  EXPECT_EQ(choice.leader, 1u);
}

TEST_F(ChooseTest, TwoHistoriesOfTheirOwnAreNotJudged) {
  Add(At(2, 12, {{1, {10}}}));
  Add(At(2, 13, {{1, {11}}}));
  EXPECT_THAT(Choose(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 AllOf(HasSubstr("b and a have histories of their own"),
                                       HasSubstr("HINT: "))));
  const Choice choice = LeadRegardless(standings_, 0);
  EXPECT_EQ(choice.leader, 0u);
  EXPECT_THAT(choice.diverged, ElementsAre(1));
}

TEST_F(ChooseTest, TheLatestTermBeatsMoreWalAndNewerTimelines) {
  Add(WithTerm(At(2, 99, {{1, {10}}}), 2, "a"));  // was promoted, and seen by nobody
  Add(WithTerm(At(2, 25, {{1, {10}}}), 3, "b"));
  Add(WithTerm(At(2, 24, {{1, {10}}}), 3, "b"));
  ASSERT_OK_AND_ASSIGN(const Choice choice, Choose());
  EXPECT_EQ(choice.leader, 1u);
  EXPECT_THAT(choice.diverged, ElementsAre(0));
  standings_[0].position.timeline = 3;
  standings_[0].position.history.push_back({2, {50}});
  ASSERT_OK_AND_ASSIGN(const Choice again, Choose());
  EXPECT_EQ(again.leader, 1u);
  EXPECT_THAT(again.diverged, ElementsAre(0));
  EXPECT_THAT(Choose(0), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ChooseTest, NobodyWhoMayLead) {
  EXPECT_THAT(Choose(), StatusIs(absl::StatusCode::kFailedPrecondition));
  Add(At(1, 10), false);
  EXPECT_THAT(Choose(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no node")));
  EXPECT_THAT(Choose(0), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("a cannot")));
}

}  // namespace
}  // namespace metal::shard
