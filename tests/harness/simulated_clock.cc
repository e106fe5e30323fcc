#include "tests/harness/simulated_clock.h"

namespace metal::testing {

absl::Time SimulatedClock::Now() {
  base::MutexLock lock(mutex_);
  return now_;
}

base::MonotonicTime SimulatedClock::Monotonic() {
  base::MutexLock lock(mutex_);
  return monotonic_;
}

base::MonotonicTime SimulatedClock::SinceBoot() {
  base::MutexLock lock(mutex_);
  return monotonic_ + suspended_;
}

void SimulatedClock::Suspend(absl::Duration duration) {
  base::MutexLock lock(mutex_);
  now_ += duration;
  suspended_ += duration;
}

void SimulatedClock::Advance(absl::Duration duration) {
  base::MutexLock lock(mutex_);
  now_ += duration;
  monotonic_ = monotonic_ + duration;
}

void SimulatedClock::SetWallClock(absl::Time now) {
  base::MutexLock lock(mutex_);
  now_ = now;
}

}  // namespace metal::testing
