#include "agent/node/timeline_history.h"

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

}  // namespace
}  // namespace metal::node
