// ThreadEngine: min(depth, 8) threads that block in pread(2) and pwrite(2). For hosts where
// io_uring is forbidden. Threading: see io_engine.h.
#pragma once

#include <atomic>
#include <deque>
#include <utility>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/uring/io_engine.h"
#include "agent/uring/wake_signal.h"

namespace metal::uring {

class ThreadEngine final : public IoEngine {
 public:
  // RESOURCE_EXHAUSTED when the threads cannot be started.
  static absl::StatusOr<std::unique_ptr<IoEngine>> Create(uint32_t depth);
  ThreadEngine(uint32_t depth, base::UniqueFd wake) : depth_(depth), signal_(std::move(wake)) {}
  // Drops requests that no thread has begun, waits for the others.
  ~ThreadEngine() override;

  std::string_view name() const override { return "threads"; }
  uint32_t depth() const override { return depth_; }
  uint32_t in_flight() const override { return in_flight_; }
  void Submit(IoRequest* request) override;
  absl::Status Reap(std::vector<IoRequest*>& done, absl::Duration timeout) override;
  void Wake() override;

 private:
  absl::Status StartThreads();
  void Work();

  const uint32_t depth_;
  uint32_t in_flight_ = 0;
  WakeSignal signal_;  // set when a request finished or Wake was called
  std::atomic<bool> woken_{false};
  base::Mutex mutex_;
  base::CondVar work_arrived_;
  std::deque<IoRequest*> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<IoRequest*> finished_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<base::Thread> threads_;
};

}  // namespace metal::uring
