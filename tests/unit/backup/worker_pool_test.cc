#include "agent/backup/worker_pool.h"

#include <memory>
#include <set>

#include "gtest/gtest.h"

namespace metal::backup {
namespace {

struct CountingItem final : public WorkItem {
  void Run(size_t worker) override {
    ++runs;
    by = worker;
  }
  int runs = 0;
  size_t by = 0;
};

class WorkerPoolTest : public ::testing::Test {
 protected:
  void Wake() {
    base::MutexLock lock(mutex_);
    woken_ = true;
    changed_.NotifyOne();
  }
  // As the ring thread does: sleeps only when nothing has finished.
  void Collect(WorkerPool& pool, size_t count) {
    while (finished_.size() < count) {
      if (pool.PrepareToSleep()) {
        base::MutexLock lock(mutex_);
        ASSERT_TRUE(changed_.WaitFor(mutex_, absl::Seconds(30), [&] { return woken_; }));
        woken_ = false;
      }
      pool.TakeFinished(finished_);
    }
  }

  base::Mutex mutex_;
  base::CondVar changed_;
  bool woken_ = false;
  std::vector<WorkItem*> finished_;
};

TEST_F(WorkerPoolTest, RunsEachItemOnceAndWakesForTheLast) {
  std::vector<CountingItem> items(1000);
  WorkerPool pool(3, [this] { Wake(); });
  for (CountingItem& item : items) pool.Submit(&item);
  Collect(pool, items.size());
  EXPECT_EQ(pool.outstanding(), 0u);
  EXPECT_EQ(std::set<WorkItem*>(finished_.begin(), finished_.end()).size(), items.size());
  for (const CountingItem& item : items) {
    EXPECT_EQ(item.runs, 1);
    EXPECT_LT(item.by, 3u);
  }
}

TEST_F(WorkerPoolTest, OneItemAtATimeIsNotDelayed) {
  CountingItem item;
  WorkerPool pool(2, [this] { Wake(); });
  for (int i = 0; i < 100; ++i) {
    pool.Submit(&item);
    Collect(pool, 1);
    finished_.clear();
  }
  EXPECT_EQ(item.runs, 100);
}

TEST_F(WorkerPoolTest, TheEndDropsWhatHasNotBegun) {
  std::vector<CountingItem> items(100);
  {
    WorkerPool pool(1, [] {});
    for (CountingItem& item : items) pool.Submit(&item);
  }
  for (const CountingItem& item : items) EXPECT_LE(item.runs, 1);
}

TEST(CodecThreadsTest, ConfigurationWins) {
  EXPECT_EQ(CodecThreads(7), 7u);
  EXPECT_GE(CodecThreads(0), 1u);
}

}  // namespace
}  // namespace metal::backup
