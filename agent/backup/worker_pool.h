// WorkerPool: the codec threads. The ring thread submits items and collects them when they are
// finished; an item is about 1 MiB of work, so one lock per item costs nothing, and sleeping
// threads are woken only when they sleep. Threading: Submit, TakeFinished, PrepareToSleep and the
// destructor belong to the ring thread; Run is called on a worker.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/base/thread.h"

namespace metal::backup {

// Owned by the ring thread, which leaves it alone from Submit until TakeFinished gave it back.
class WorkItem {
 public:
  virtual ~WorkItem() = default;
  // `worker` is 0 … threads − 1: for state that each thread keeps to itself.
  virtual void Run(size_t worker) = 0;
};

class WorkerPool {
 public:
  // `wake` interrupts the ring thread's wait; it is called from workers and outlives the pool.
  WorkerPool(size_t threads, std::function<void()> wake);
  // Drops items that no thread has begun, waits for the others.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;

  void Submit(WorkItem* item);
  // Appends finished items in the order in which they finished.
  void TakeFinished(std::vector<WorkItem*>& out);
  // Announces that the ring thread is about to wait: the next finished item calls `wake`. False:
  // something has finished already, do not wait.
  bool PrepareToSleep();
  size_t threads() const { return thread_count_; }
  // Items submitted and not taken back yet.
  size_t outstanding() const { return outstanding_; }

 private:
  void Work(size_t worker);

  const size_t thread_count_;
  const std::function<void()> wake_;
  size_t outstanding_ = 0;
  base::Mutex mutex_;
  base::CondVar work_arrived_;
  std::deque<WorkItem*> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<WorkItem*> finished_ ABSL_GUARDED_BY(mutex_);
  size_t sleeping_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ring_sleeps_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<base::Thread> threads_;
};

// config.backup_threads, or one for each CPU this process may use.
size_t CodecThreads(int configured);

}  // namespace metal::backup
