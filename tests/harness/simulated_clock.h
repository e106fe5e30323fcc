// A clock that moves only when a test moves it. Threading: thread-safe.
#pragma once

#include "agent/base/clock.h"
#include "agent/base/mutex.h"

namespace metal::testing {

class SimulatedClock final : public base::Clock {
 public:
  explicit SimulatedClock(absl::Time start = absl::FromUnixSeconds(1'800'000'000)) : now_(start) {}

  absl::Time Now() override;
  base::MonotonicTime Monotonic() override;
  base::MonotonicTime SinceBoot() override;
  // Moves the clock by `duration` at once: a loop that sleeps makes progress without real time.
  void Sleep(absl::Duration duration) override { Advance(duration); }

  // Moves both clocks forward.
  void Advance(absl::Duration duration);
  // As after the host slept: only the wall clock and the time since boot have moved.
  void Suspend(absl::Duration duration);
  // Sets the wall clock alone, as an administrator or NTP does.
  void SetWallClock(absl::Time now);

 private:
  base::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  base::MonotonicTime monotonic_ ABSL_GUARDED_BY(mutex_){absl::Hours(1)};
  absl::Duration suspended_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::testing
