// Progress and cancellation of one running operation: the worker reports, readers look at any time.
// Threading: all methods are thread-safe; none blocks on I/O.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"

namespace metal::observe {

struct ProgressSnapshot {
  std::string phase;  // lower case, e.g. "copying files"
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;     // 0: unknown
  double bytes_per_second = 0;  // over the last few seconds of this phase
  absl::Duration eta = absl::InfiniteDuration();
  absl::Duration phase_elapsed;
};

class Progress {
 public:
  explicit Progress(base::Clock& clock);

  // Starts a named phase; done starts at 0. Calls the phase observer (journal, event) when one is
  // set.
  void BeginPhase(std::string phase, uint64_t total_bytes = 0);
  void AddDone(uint64_t bytes) { done_.fetch_add(bytes, std::memory_order_relaxed); }
  void SetDone(uint64_t bytes) { done_.store(bytes, std::memory_order_relaxed); }
  void SetTotal(uint64_t bytes) { total_.store(bytes, std::memory_order_relaxed); }
  ProgressSnapshot Snapshot();

  void RequestCancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  // CANCELLED "operation was cancelled" once RequestCancel was called, else OK. Call it in every
  // loop.
  absl::Status CheckCancelled() const;

  // Set before the operation starts; called on the worker's thread at each BeginPhase.
  void SetPhaseObserver(std::function<void(const std::string& phase)> observer);

 private:
  base::Clock& clock_;
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> total_{0};
  std::atomic<bool> cancelled_{false};
  base::Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_);
  base::MonotonicTime phase_start_ ABSL_GUARDED_BY(mutex_);
  base::MonotonicTime rate_time_ ABSL_GUARDED_BY(mutex_);
  uint64_t rate_done_ ABSL_GUARDED_BY(mutex_) = 0;
  double rate_ ABSL_GUARDED_BY(mutex_) = 0;
  std::function<void(const std::string&)> observer_;
};

}  // namespace metal::observe
