// Throttle: a limit of bytes per second that several connections share. Threading: thread-safe.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"

namespace metal::transfer {

class Throttle {
 public:
  // 0: no limit.
  Throttle(uint64_t bytes_per_second, base::Clock& clock)
      : rate_(bytes_per_second), clock_(clock) {}

  // Books `bytes`; how long the caller has to wait before it sends them. Zero without a limit.
  // After a pause at most 200 ms worth of the rate is sent at once.
  absl::Duration Book(uint64_t bytes);

 private:
  const uint64_t rate_;
  base::Clock& clock_;
  base::Mutex mutex_;
  // When what was booked so far will have been sent.
  absl::Duration free_at_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
};

}  // namespace metal::transfer
