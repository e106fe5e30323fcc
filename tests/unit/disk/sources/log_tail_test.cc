#include "agent/disk/sources/log_tail.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/base/mutex.h"
#include "agent/disk/sources/postgres_log_watch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class LogTailTest : public ::testing::Test {
 protected:
  std::vector<std::string> Poll() {
    std::vector<std::string> lines;
    tail_.Poll([&](std::string_view line) { lines.emplace_back(line); });
    return lines;
  }
  void Add(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }

  metal::testing::TempDir dir_;
  const std::string path_ = dir_.File("postgres.log");
  LogTail tail_{path_};
};

TEST_F(LogTailTest, WhatWasThereIsSkippedAndLinesComeWhole) {
  Add("old\nhalf");
  EXPECT_THAT(Poll(), IsEmpty());
  Add(" of it\nnew\n\nbegun");
  EXPECT_THAT(Poll(), ElementsAre(" of it", "new", ""));
  EXPECT_THAT(Poll(), IsEmpty());
  Add(" and ended\n");
  EXPECT_THAT(Poll(), ElementsAre("begun and ended"));
}

TEST_F(LogTailTest, AFileThatComesLaterIsReadFromItsBeginning) {
  EXPECT_THAT(Poll(), IsEmpty());
  Add("first\n");
  EXPECT_THAT(Poll(), ElementsAre("first"));
}

TEST_F(LogTailTest, RotationLosesNothing) {
  Add("a\n");
  Poll();
  Add("b\n");
  fs::rename(path_, path_ + ".1");
  Add("c\n");
  EXPECT_THAT(Poll(), ElementsAre("b", "c"));
  fs::rename(path_, path_ + ".1");
  EXPECT_THAT(Poll(), IsEmpty());
  Add("d\n");
  EXPECT_THAT(Poll(), ElementsAre("d"));
}

TEST_F(LogTailTest, ATruncatedFileBeginsAnew) {
  Add("a long line\n");
  Poll();
  EXPECT_EQ(truncate(path_.c_str(), 0), 0);
  Add("b\n");
  EXPECT_THAT(Poll(), ElementsAre("b"));
}

TEST_F(LogTailTest, AnEndlessLineIsCutOnce) {
  Add("x\n");
  Poll();
  Add(std::string(300'000, 'y') + "\nnext\n");
  const auto lines = Poll();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].size(), 64u << 10);
  EXPECT_EQ(lines[1], "next");
}

TEST_F(LogTailTest, WhatIsNoFileIsNotRead) {
  fs::create_directory(path_);
  EXPECT_THAT(Poll(), IsEmpty());
  fs::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(Poll(), IsEmpty());  // and does not wait for a writer
}

TEST(PostgresLogWatchTest, LinesOfTheFileBecomeEvidence) {
  metal::testing::TempDir dir;
  metal::testing::RecordedEvents events;
  base::Mutex mutex;
  base::CondVar changed;
  std::vector<Evidence> seen;
  PostgresLogWatch watch(
      dir.File("postgres.log"),
      [&](Evidence evidence) {
        base::MutexLock lock(mutex);
        seen.push_back(std::move(evidence));
        changed.NotifyAll();
      },
      events, base::RealClock(), absl::Milliseconds(5));
  watch.SetRoles({"data", "wal"});
  // Whatever the first look saw: one of them comes after it.
  for (int i = 0; i < 2; ++i) {
    std::ofstream(dir.File("postgres.log"), std::ios::app)
        << "[7] ERROR:  could not read from WAL segment 000000010000000000000001, offset 0: "
           "Input/output error\n";
    base::MutexLock lock(mutex);
    if (changed.WaitFor(mutex, absl::Seconds(i == 0 ? 2 : 20), [&] { return !seen.empty(); })) {
      break;
    }
  }
  base::MutexLock lock(mutex);
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen[0].role, "wal");
}

}  // namespace
}  // namespace metal::disk
