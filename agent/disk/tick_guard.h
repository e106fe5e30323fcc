// TickGuard: tells a periodic judge of ages when it was itself asleep: stopped, starved, or its
// machine suspended. Ages measured over such a gap say nothing about a device: those who wait for
// it slept as well, and get one tick to catch up.
// Threading: not thread-safe; no I/O, reads no clock.
#pragma once

#include <optional>

#include "absl/time/time.h"
#include "agent/base/clock.h"

namespace metal::disk {

class TickGuard {
 public:
  explicit TickGuard(absl::Duration longest_gap) : longest_gap_(longest_gap) {}

  // Called at every tick: false when the tick before was longer ago than `longest_gap`.
  bool Awake(base::MonotonicTime now) {
    const bool awake = !last_ || now - *last_ <= longest_gap_;
    last_ = now;
    return awake;
  }

 private:
  const absl::Duration longest_gap_;
  std::optional<base::MonotonicTime> last_;
};

}  // namespace metal::disk
