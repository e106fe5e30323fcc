#include "agent/node/rewind/timeline_history.h"

#include <gtest/gtest.h>

#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;

TEST(TimelineHistoryTest, ReadsWhatTheServerWrites) {
  ASSERT_OK_AND_ASSIGN(const auto history,
                       ParseTimelineHistory("1\t0/3000000\tno recovery target specified\n\n"
                                            "# a comment\n"
                                            "  2 \t 16/B374D848\tbefore 2026-11-22\n"));
  ASSERT_EQ(history.size(), 2u);
  EXPECT_EQ(history[0].timeline, 1u);
  EXPECT_EQ(history[0].switch_lsn.ToString(), "0/3000000");
  EXPECT_EQ(history[1].timeline, 2u);
  EXPECT_EQ(history[1].switch_lsn.ToString(), "16/B374D848");
}

TEST(TimelineHistoryTest, RefusesWhatTheServerWouldRefuse) {
  for (const char* text : {"x\t0/1\treason\n", "1\n", "1\t0-1\treason\n", "0\t0/1\treason\n",
                           "2\t0/1\ta\n1\t0/2\tb\n", "1\t0/1\ta\n1\t0/2\tb\n"}) {
    EXPECT_THAT(ParseTimelineHistory(text), StatusIs(absl::StatusCode::kDataLoss)) << text;
  }
}

TEST(TimelineHistoryTest, FirstTimelineHasNone) {
  const testing::TempDir directory;
  EXPECT_TRUE(ReadTimelineHistory(directory.path(), 1)->empty());
  EXPECT_THAT(ReadTimelineHistory(directory.path(), 2), StatusIs(absl::StatusCode::kNotFound));
  directory.Write("pg_wal/0000000B.history", "10\t0/5000000\tx\n");
  ASSERT_OK_AND_ASSIGN(const auto history, ReadTimelineHistory(directory.path(), 11));
  ASSERT_EQ(history.size(), 1u);
  EXPECT_EQ(history[0].timeline, 10u);
}

TEST(TimelineHistoryTest, TextForResultsRoundTrips) {
  const std::vector<TimelineSwitch> history = {{1, base::Lsn{0x3000000}},
                                               {4, base::Lsn{0x16B374D848}}};
  const std::string text = EncodeHistory(history);
  EXPECT_EQ(text, "1@0/3000000,4@16/B374D848");
  const auto decoded = DecodeHistory(text);
  ASSERT_EQ(decoded.size(), 2u);
  EXPECT_EQ(decoded[1].timeline, 4u);
  EXPECT_EQ(decoded[1].switch_lsn, history[1].switch_lsn);
  EXPECT_TRUE(DecodeHistory("").empty());
  EXPECT_TRUE(DecodeHistory("nonsense,@,1@").empty());
}

TEST(TimelineInWalTest, TheSegmentWithTheLastByteDecides) {
  constexpr uint64_t kSegment = 16 << 20;
  const std::vector<std::string> files = {"000000020000000000000006", "000000030000000000000006",
                                          "000000030000000000000007", "00000003.history",
                                          "000000040000000000000009", "archive_status"};
  EXPECT_EQ(NewestTimelineAt(files, {0x60000A0}, kSegment), 3u);
  EXPECT_EQ(NewestTimelineAt(files, {0x7000000}, kSegment), 3u) << "the byte before it";
  EXPECT_EQ(NewestTimelineAt(files, {0x7000001}, kSegment), 3u);
  EXPECT_EQ(NewestTimelineAt(files, {0x8000001}, kSegment), 0u);
  EXPECT_EQ(NewestTimelineAt(files, {}, kSegment), 0u);
}

TEST(TimelineInWalTest, NothingReceivedBeyondASwitchIsTheTimelineBeforeIt) {
  WalPosition position;
  position.timeline = 3;
  position.history = {{1, {0x1000}}, {2, {0x2000}}};
  position.received = {0x2001};
  StepBackToReceived(position);
  EXPECT_EQ(position.timeline, 3u);
  position.received = {0x2000};
  StepBackToReceived(position);
  EXPECT_EQ(position.timeline, 2u);
  EXPECT_EQ(position.history.size(), 1u);
}

}  // namespace
}  // namespace metal::node
