// Throttle: a limit of bytes per second that several callers share: connections of a clone, the
// reads of a backup. One may be part of another, which all operations together have. Threading:
// thread-safe.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"

namespace metal::base {

class Throttle {
 public:
  // INVALID_ARGUMENT for less than 1 MiB per second; 0 is no limit.
  static absl::Status CheckRate(uint64_t bytes_per_second);

  // 0: no limit. What is booked here is booked with `whole` too, which may be null and outlives
  // this one; the longer wait of the two counts.
  Throttle(uint64_t bytes_per_second, Clock& clock, Throttle* whole = nullptr)
      : clock_(clock), whole_(whole), rate_(bytes_per_second) {}

  // Books `bytes`, and `bytes_of_whole` with the whole; how long the caller has to wait before it
  // moves them. Zero without a limit. After a pause at most 200 ms worth of the rate goes at once.
  // All are served in the order in which they book: who waits first for room to book would never
  // get any beside one who does not.
  absl::Duration Book(uint64_t bytes, uint64_t bytes_of_whole);
  absl::Duration Book(uint64_t bytes) { return Book(bytes, bytes); }
  // What was booked before keeps its time, but where there is no limit any more.
  void SetRate(uint64_t bytes_per_second);
  // Bytes that were booked here since the beginning.
  uint64_t booked() const;
  Clock& clock() const { return clock_; }

 private:
  Clock& clock_;
  Throttle* const whole_;
  mutable Mutex mutex_;
  uint64_t rate_ ABSL_GUARDED_BY(mutex_);
  uint64_t booked_ ABSL_GUARDED_BY(mutex_) = 0;
  // When what was booked so far will have been sent.
  absl::Duration free_at_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
};

}  // namespace metal::base
