#include "agent/backup/wal_prefetch.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "agent/base/file.h"
#include "agent/base/thread.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

class WalPrefetchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t number = 1; number <= 12; ++number) {
      ASSERT_OK(archive_->PushBytes(Segment(number).Name(), BytesOf(Segment(number).Bytes()),
                                    kTestSystem));
    }
    struct stat status;
    ASSERT_EQ(stat(directory_.path().c_str(), &status), 0);
    device_ = status.st_dev;
  }
  void TearDown() override {
    prefetcher_.Stop();
    thread_.Join();
  }
  void StartThread() {
    thread_ = base::Thread("prefetch", [this] { prefetcher_.Run(); });
  }
  static TestSegment Segment(uint64_t number) {
    return {.start = base::Lsn{number * kTestSegmentSize}, .seed = static_cast<unsigned>(number)};
  }
  std::vector<base::UniqueFd> Spares(int count) {
    std::vector<base::UniqueFd> spares;
    for (int i = 0; i < count; ++i) {
      spares.emplace_back(open(directory_.path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
      EXPECT_TRUE(spares.back().valid());
    }
    return spares;
  }
  void Schedule(uint64_t number, int spares) {
    prefetcher_.Schedule(kTestSystem, Segment(number).Name(), kTestSegmentSize, device_,
                         Spares(spares));
  }
  base::UniqueFd Take(uint64_t number) {
    return prefetcher_.Take(kTestSystem, Segment(number).Name(), device_, kPatience);
  }
  // Take until the thread came to it.
  base::UniqueFd TakeDecoded(uint64_t number) {
    while (archive_->Statistics().fetched < fetched_ + 1) std::this_thread::yield();
    ++fetched_;
    return Take(number);
  }
  static std::string Contents(const base::UniqueFd& fd) {
    std::string bytes(2 * kTestSegmentSize, '\0');
    const ssize_t n = pread(fd.get(), bytes.data(), bytes.size(), 0);
    return bytes.substr(0, static_cast<size_t>(std::max<ssize_t>(n, 0)));
  }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  std::shared_ptr<WalArchive> archive_ = std::make_shared<WalArchive>(
      WalArchiveOptions{.repository_path = directory_.File("repository")}, clock_, nullptr);
  WalPrefetcher prefetcher_{archive_, clock_};
  base::Thread thread_;
  dev_t device_ = 0;
  uint64_t fetched_ = 0;
};

TEST_F(WalPrefetchTest, SegmentsThatFollowAreDecodedAhead) {
  StartThread();
  Schedule(1, 2);
  for (const uint64_t number : {2, 3}) {
    const base::UniqueFd file = TakeDecoded(number);
    ASSERT_TRUE(file.valid()) << number;
    EXPECT_TRUE(Contents(file) == Segment(number).Bytes()) << number;
  }
  EXPECT_FALSE(Take(4).valid()) << "there was no third spare file";
  EXPECT_FALSE(Take(2).valid()) << "it was given away";
  EXPECT_EQ(prefetcher_.hits(), 2u);
}

TEST_F(WalPrefetchTest, SegmentOnItsWayNeedsNoSecondSpare) {
  Schedule(1, 2);
  Schedule(2, 2);  // 3 is on its way: 4 gets a file
  StartThread();
  EXPECT_TRUE(TakeDecoded(3).valid());
  EXPECT_TRUE(TakeDecoded(4).valid());
  EXPECT_FALSE(Take(2).valid()) << "the recovery is beyond it";
}

TEST_F(WalPrefetchTest, WhatNobodyStartedIsLeftToTheCaller) {
  Schedule(1, 1);
  EXPECT_FALSE(Take(2).valid());
}

TEST_F(WalPrefetchTest, OtherClusterAndOtherFilesystemGetNothing) {
  StartThread();
  Schedule(1, 1);
  while (archive_->Statistics().fetched == 0) std::this_thread::yield();
  EXPECT_FALSE(prefetcher_.Take(kTestSystem, Segment(2).Name(), device_ + 1, kPatience).valid());
  EXPECT_FALSE(prefetcher_.Take(42, Segment(2).Name(), device_, kPatience).valid());
  EXPECT_TRUE(Take(2).valid());
}

TEST_F(WalPrefetchTest, AbsentAndDamagedSegmentsAreNotHandedOut) {
  const std::string path =
      directory_.File("repository/7300000000000000001/wal/00000001/" + Segment(12).Name() + ".wal");
  ASSERT_EQ(truncate(path.c_str(), 5000), 0);
  Schedule(11, 4);  // 12 is damaged, 13 to 15 are not there
  Schedule(1, 1);
  StartThread();
  EXPECT_TRUE(TakeDecoded(2).valid());  // behind the others
  for (const uint64_t number : {12, 13, 14, 15}) EXPECT_FALSE(Take(number).valid()) << number;
}

TEST_F(WalPrefetchTest, NumberOfSegmentsIsBounded) {
  Schedule(1, 12);
  StartThread();
  while (archive_->Statistics().fetched < WalPrefetcher::kMaxSegments) std::this_thread::yield();
  EXPECT_TRUE(Take(1 + WalPrefetcher::kMaxSegments).valid());
  EXPECT_FALSE(Take(2 + WalPrefetcher::kMaxSegments).valid());
}

TEST_F(WalPrefetchTest, SegmentsThatNobodyWantsAreForgotten) {
  StartThread();
  Schedule(1, 1);
  while (archive_->Statistics().fetched == 0) std::this_thread::yield();
  clock_.Advance(WalPrefetcher::kKeep);
  Schedule(5, 0);
  EXPECT_FALSE(Take(2).valid());
}

TEST_F(WalPrefetchTest, HugeSegmentsAndOtherFilesAreNotPrefetched) {
  prefetcher_.Schedule(kTestSystem, "000000010000000000000000", 128 * base::kMiB, device_,
                       Spares(1));
  prefetcher_.Schedule(kTestSystem, "00000002.history", 100, device_, Spares(1));
  StartThread();
  Schedule(1, 1);
  EXPECT_TRUE(TakeDecoded(2).valid());
  EXPECT_EQ(archive_->Statistics().fetched, 1u);
}

}  // namespace
}  // namespace metal::backup
