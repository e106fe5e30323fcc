#include "agent/pg/term_history.h"

#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using observe::TermHistoryEntry;
using ::testing::HasSubstr;

TermHistoryEntry Row(uint64_t term, base::TimelineId timeline, const std::string& node) {
  TermHistoryEntry entry;
  entry.term = term;
  entry.timeline = timeline;
  entry.start_lsn = base::Lsn{term * 0x1000};
  entry.time = absl::FromUnixMicros(static_cast<int64_t>(term) * 1'000'001);
  entry.node_id = node;
  entry.orchestrator_id = "o";
  return entry;
}

HistoryRelation Relation(const TermHistory& a, const TermHistory& b) {
  return CompareTermHistories(a, b).relation;
}

std::string RewindOf(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  return reason && reason->reason == "HISTORY_DIVERGED" ? reason->metadata.at("rewind") : "";
}

TEST(TermHistoryTest, OneHistoryAtDifferentLengthsIsOne) {
  const TermHistory three = {Row(1, 2, "a"), Row(2, 3, "b"), Row(5, 4, "a")};
  const TermHistory two = {Row(1, 2, "a"), Row(2, 3, "b")};
  EXPECT_EQ(Relation(three, three), HistoryRelation::kSame);
  EXPECT_EQ(Relation(two, three), HistoryRelation::kFirstOlder);
  EXPECT_EQ(Relation(three, two), HistoryRelation::kSecondOlder);
}

TEST(TermHistoryTest, WindowsAreComparedWhereTheyOverlap) {
  const TermHistory whole = {Row(1, 2, "a"), Row(2, 3, "b"), Row(5, 4, "a")};
  const TermHistory tail = {Row(2, 3, "b"), Row(5, 4, "a"), Row(6, 5, "c")};
  EXPECT_EQ(Relation(whole, tail), HistoryRelation::kFirstOlder);
  const TermHistory far = {Row(8, 7, "b"), Row(9, 8, "b")};
  EXPECT_EQ(Relation(whole, far), HistoryRelation::kUnknown);
  EXPECT_EQ(Relation(whole, {}), HistoryRelation::kUnknown);
}

TEST(TermHistoryTest, TwoHistoriesOnOneTimelineAreRecognised) {
  // Both promoted from timeline 2, each to 3, apart from each other.
  const TermHistory a = {Row(1, 2, "a"), Row(2, 3, "a")};
  const TermHistory b = {Row(1, 2, "a"), Row(3, 3, "b")};
  const HistoryComparison found = CompareTermHistories(a, b);
  EXPECT_EQ(found.relation, HistoryRelation::kDiverged);
  EXPECT_TRUE(found.invisible_to_rewind);
  EXPECT_EQ(found.timeline, 3u);
  EXPECT_THAT(found.explanation, HasSubstr("term 2 on timeline 3"));
  for (const SourceHistory known : {SourceHistory::kWhole, SourceHistory::kSoFar}) {
    EXPECT_EQ(RewindOf(CheckMayFollow(a, b, known)), "impossible");
  }
  const absl::Status follow = CheckMayFollow(a, b, SourceHistory::kWhole);
  EXPECT_EQ(base::GetReason(follow)->metadata.at("timeline"), "3");
  EXPECT_THAT(follow, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("HINT: Clone")));
}

TEST(TermHistoryTest, OneTermOfTwoNodesIsTwoHistories) {
  EXPECT_EQ(Relation({Row(2, 3, "a")}, {Row(2, 3, "b")}), HistoryRelation::kDiverged);
  TermHistoryEntry later = Row(2, 3, "a");
  later.time += absl::Seconds(1);
  EXPECT_EQ(Relation({Row(2, 3, "a")}, {later}), HistoryRelation::kDiverged);
}

// One node, one term, two rows: see invisible_to_rewind for what that can be.
TEST(TermHistoryTest, APrimaryThatWroteItsRowAnewIsAnotherHistory) {
  const TermHistory kept = {Row(1, 2, "a"), Row(2, 3, "a")};
  TermHistory anew = kept;
  anew[1].start_lsn.value += 0x60;
  anew[1].time += absl::Seconds(9);
  // It lost WAL of timeline 3 that a standby has, and went on there: pg_rewind would find nothing
  // to do, and the standby would keep what the primary never had.
  for (const SourceHistory known : {SourceHistory::kWhole, SourceHistory::kSoFar}) {
    EXPECT_EQ(RewindOf(CheckMayFollow(kept, anew, known)), "impossible");
    EXPECT_EQ(RewindOf(CheckMayFollow(anew, kept, known)), "impossible");
  }
  // Later terms on later timelines prove nothing: both may have left timeline 2 at one place.
  anew.push_back(Row(3, 4, "b"));
  EXPECT_EQ(RewindOf(CheckMayFollow(kept, anew, SourceHistory::kWhole)), "impossible");
}

TEST(TermHistoryTest, APrimaryThatWasPromotedAgainInItsTermIsFoundByARewind) {
  const TermHistory first = {Row(1, 2, "a"), Row(2, 3, "a")};
  TermHistory again = {Row(1, 2, "a"), Row(2, 4, "a")};
  again[1].start_lsn.value += 0x60;
  EXPECT_TRUE(CompareTermHistories(first, again).relation == HistoryRelation::kDiverged);
  const absl::Status follow = CheckMayFollow(first, again, SourceHistory::kWhole);
  EXPECT_EQ(RewindOf(follow), "possible");
  EXPECT_THAT(follow, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("HINT: Rewind")));
}

TEST(TermHistoryTest, AFollowerMayLackTermsAndMayNotHaveMore) {
  const TermHistory primary = {Row(1, 2, "a"), Row(4, 3, "b")};
  const auto check = [](const TermHistory& own, const TermHistory& theirs) {
    return CheckMayFollow(own, theirs, SourceHistory::kWhole);
  };
  EXPECT_OK(check({Row(1, 2, "a")}, primary));
  EXPECT_OK(check(primary, primary));
  EXPECT_OK(check({}, primary));
  EXPECT_OK(check(primary, {}));
  EXPECT_EQ(RewindOf(check(primary, {Row(1, 2, "a")})), "possible");
  EXPECT_EQ(RewindOf(check({Row(1, 2, "a"), Row(3, 9, "c")}, primary)), "possible");
  // A standby that is followed may be behind.
  EXPECT_OK(CheckMayFollow(primary, TermHistory{Row(1, 2, "a")}, SourceHistory::kSoFar));
}

TEST(TermHistoryTest, ATermThatHadAPrimaryIsNotBegunByAnother) {
  const TermHistory own = {Row(1, 2, "a"), Row(4, 3, "b")};
  EXPECT_OK(CheckMayPromote(own, 5, "a"));
  EXPECT_OK(CheckMayPromote(own, 4, "b"));
  EXPECT_OK(CheckMayPromote(TermHistory{}, 1, "a"));
  EXPECT_THAT(CheckMayPromote(own, 4, "a"), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                     HasSubstr("HINT: begin a term above")));
  const absl::Status refused = CheckMayPromote(own, 3, "b");
  EXPECT_EQ(RewindOf(refused), "impossible");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("HINT: begin a term above 4")));
  EXPECT_EQ(base::GetReason(refused)->metadata.at("last_term"), "4") << "for who begins the next";
}

TEST(TermHistoryTest, TextRoundTripsWhateverASuperuserWrote) {
  TermHistory history = {Row(1, 2, "a"), Row(~uint64_t{0}, 3, "b")};
  history[1].orchestrator_id = "tab\there\nline";
  const TermHistory decoded = DecodeTermHistory(EncodeTermHistory(history));
  ASSERT_EQ(decoded.size(), 2u);
  EXPECT_EQ(Relation(decoded, history), HistoryRelation::kSame);
  EXPECT_EQ(decoded[1].orchestrator_id, "tab?here?line");
  EXPECT_TRUE(DecodeTermHistory("x\n1\t2\n\n").empty());
}

}  // namespace
}  // namespace metal::pg
