// What people read of a shard: the columns of its table, and the steps of a procedure.
#include "tools/metalctl/shard/shard_text.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/unit/shard/healthy_shard.h"
#include "tools/metalctl/shard/step_log.h"

namespace metal::shard {
namespace {

using ::testing::HasSubstr;

// Cells of the table by node and column; a column that no node fills is left out.
std::map<std::string, std::map<std::string, std::string>> CellsOf(const std::string& text) {
  std::istringstream lines(text.substr(text.find("NODE")));
  std::map<std::string, std::map<std::string, std::string>> cells;
  std::string line, word;
  std::getline(lines, line);
  std::vector<std::string> names;
  for (std::istringstream head(line); head >> word;) names.push_back(word);
  while (std::getline(lines, line) && !line.empty()) {
    // Cells are apart by two spaces: "3.5 s" is one.
    std::vector<std::string> row;
    for (size_t at = 0; at < line.size();) {
      const size_t begin = line.find_first_not_of(' ', at);
      if (begin == std::string::npos) break;
      at = std::min(line.find("  ", begin), line.size());
      row.push_back(line.substr(begin, at - begin));
    }
    EXPECT_EQ(row.size(), names.size()) << text;
    for (size_t i = 0; i < std::min(row.size(), names.size()); ++i)
      cells[row[0]][names[i]] = row[i];
  }
  return cells;
}

TEST(ShardTextTest, EachNodeHasItsLagDiskAndBackup) {
  std::vector<NodeView> views = HealthyShard();
  views[0].backup_age = absl::Minutes(90);
  views[1].lag_bytes = 3 << 20;
  views[1].lag = absl::Milliseconds(3500);
  views[1].disk = "stalled";
  views[2].answered = false;
  const std::string text = StatusText(ThreeNodes(), views, {}, {.colors = false, .width = 0});
  EXPECT_THAT(text, HasSubstr("shard orders: primary a, term 4, commits wait for "));
  EXPECT_THAT(text, HasSubstr("no inconsistencies"));
  auto cells = CellsOf(text);
  ASSERT_EQ(cells.size(), 3u) << text;
  EXPECT_EQ(cells["a"]["ROLE"], "primary");
  EXPECT_EQ(cells["a"]["LAG"], "-");
  EXPECT_EQ(cells["a"]["DISK"], "healthy");
  EXPECT_EQ(cells["a"]["BACKUP"], "1h30m") << text;
  EXPECT_EQ(cells["b"]["BEHIND"], "3.0 MiB") << text;
  EXPECT_EQ(cells["b"]["LAG"], "3.5 s");
  EXPECT_EQ(cells["b"]["DISK"], "stalled");
  EXPECT_EQ(cells["b"]["SYNC"], "quorum");
  EXPECT_EQ(cells["b"]["BACKUP"], "-");
  EXPECT_EQ(cells["c"]["DISK"], "-");
}

TEST(ShardTextTest, AStepIsALineWithItsDuration) {
  ::testing::internal::CaptureStdout();
  TextStepLog log(false);
  log.Begin("promote", "b");
  log.End({.name = "promote",
           .nodes = "b",
           .took = absl::Milliseconds(1234),
           .error = "",
           .result = "timeline 4"});
  log.End({.name = "release",
           .nodes = "c",
           .took = absl::Milliseconds(56),
           .error = "no answer",
           .result = ""});
  EXPECT_EQ(::testing::internal::GetCapturedStdout(),
            "promote            b            1.234 s  timeline 4\n"
            "release            c            0.056 s  FAILED: no answer\n");
}

TEST(ShardTextTest, ATerminalShowsTheStepThatRuns) {
  ::testing::internal::CaptureStdout();
  TextStepLog log(true);
  log.Begin("promote", "b");
  const std::string said = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(said, HasSubstr("promote            b          …"));
  EXPECT_EQ(said.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace metal::shard
