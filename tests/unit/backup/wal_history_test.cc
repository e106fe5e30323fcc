// A new repository gets the history of a timeline that began before it.
#include "agent/backup/wal_history.h"

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::backup {
namespace {

constexpr uint64_t kSystem = 7000000000000000001;
constexpr const char* kHistory = "1\t0/3000000\tno recovery target specified\n";

class WalHistoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(base::MakeDirectories(data_ + "/pg_wal").ok());
    ASSERT_TRUE(base::WriteFileDurably(data_ + "/pg_wal/00000002.history", kHistory).ok());
  }

  testing::TempDir directory_;
  std::string data_ = std::string(directory_.path()) + "/data";
  WalArchive archive_{
      WalArchiveOptions{.repository_path = std::string(directory_.path()) + "/repo"},
      base::RealClock(), nullptr};
};

TEST_F(WalHistoryTest, TheFileOfTheDataDirectoryIsArchived) {
  ASSERT_TRUE(ProvideTimelineHistory(archive_, kSystem, 2, data_).ok());
  const auto stored = archive_.FetchBytes(kSystem, "00000002.history");
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(*stored, kHistory);
}

TEST_F(WalHistoryTest, ASecondTimeChangesNothing) {
  ASSERT_TRUE(ProvideTimelineHistory(archive_, kSystem, 2, data_).ok());
  EXPECT_TRUE(ProvideTimelineHistory(archive_, kSystem, 2, data_).ok());
}

TEST_F(WalHistoryTest, AnotherHistoryUnderTheSameNameIsRefused) {
  ASSERT_TRUE(ProvideTimelineHistory(archive_, kSystem, 2, data_).ok());
  ASSERT_TRUE(base::WriteFileDurably(data_ + "/pg_wal/00000002.history",
                                     "1\t0/4000000\tno recovery target specified\n")
                  .ok());
  EXPECT_EQ(ProvideTimelineHistory(archive_, kSystem, 2, data_).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(WalHistoryTest, TimelineOneAndAMissingFileAreFine) {
  EXPECT_TRUE(ProvideTimelineHistory(archive_, kSystem, 1, data_).ok());
  EXPECT_TRUE(ProvideTimelineHistory(archive_, kSystem, 3, data_).ok());
  EXPECT_FALSE(archive_.FetchBytes(kSystem, "00000003.history").ok());
}

}  // namespace
}  // namespace metal::backup
