#include "agent/backup/worker_pool.h"

#include <sched.h>

#include <algorithm>

#include "fmt/format.h"

namespace metal::backup {
namespace {

constexpr size_t kWakeBatch = 4;

}  // namespace

WorkerPool::WorkerPool(size_t threads, std::function<void()> wake)
    : thread_count_(std::max<size_t>(threads, 1)), wake_(std::move(wake)) {
  for (size_t i = 0; i < thread_count_; ++i) {
    threads_.emplace_back(fmt::format("codec-{}", i), [this, i] { Work(i); });
  }
}

WorkerPool::~WorkerPool() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  work_arrived_.NotifyAll();
  for (base::Thread& thread : threads_) thread.Join();
}

void WorkerPool::Submit(WorkItem* item) {
  ++outstanding_;
  bool notify = false;
  {
    base::MutexLock lock(mutex_);
    queue_.push_back(item);
    notify = sleeping_ > 0;
  }
  if (notify) work_arrived_.NotifyOne();
}

void WorkerPool::TakeFinished(std::vector<WorkItem*>& out) {
  base::MutexLock lock(mutex_);
  ring_sleeps_ = false;
  outstanding_ -= finished_.size();
  out.insert(out.end(), finished_.begin(), finished_.end());
  finished_.clear();
}

bool WorkerPool::PrepareToSleep() {
  base::MutexLock lock(mutex_);
  if (!finished_.empty()) return false;
  ring_sleeps_ = true;
  return true;
}

void WorkerPool::Work(size_t worker) {
  base::GiveWay();
  mutex_.Lock();
  while (true) {
    while (queue_.empty() && !stopping_) {
      ++sleeping_;
      work_arrived_.Wait(mutex_);
      --sleeping_;
    }
    if (stopping_) break;
    WorkItem* item = queue_.front();
    queue_.pop_front();
    mutex_.Unlock();
    item->Run(worker);
    mutex_.Lock();
    finished_.push_back(item);
    // One wake-up for several items while the other threads have work; at once when they soon have
    // none.
    if (ring_sleeps_ && (finished_.size() >= kWakeBatch || queue_.size() < thread_count_)) {
      ring_sleeps_ = false;
      mutex_.Unlock();
      wake_();
      mutex_.Lock();
    }
  }
  mutex_.Unlock();
}

size_t CodecThreads(int configured) {
  if (configured > 0) return static_cast<size_t>(configured);
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<size_t>(std::max(CPU_COUNT(&set), 1));
}

}  // namespace metal::backup
