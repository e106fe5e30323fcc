// The seam for time. Only clock.cc reads the machine's clocks; tests pass a simulated one.
// Threading: implementations are safe for concurrent use.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace metal::base {

// A point on a clock that is never set: that of Monotonic() or that of SinceBoot(). The two must
// not be mixed.
struct MonotonicTime {
  absl::Duration since_start;  // since an arbitrary origin
  friend absl::Duration operator-(MonotonicTime a, MonotonicTime b) {
    return a.since_start - b.since_start;
  }
  friend MonotonicTime operator+(MonotonicTime a, absl::Duration d) { return {a.since_start + d}; }
  friend bool operator<(MonotonicTime a, MonotonicTime b) { return a.since_start < b.since_start; }
  friend bool operator>=(MonotonicTime a, MonotonicTime b) { return !(a < b); }
  friend bool operator==(MonotonicTime a, MonotonicTime b) {
    return a.since_start == b.since_start;
  }
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;
  virtual MonotonicTime Monotonic() = 0;
  // Monotonic, counted from the host's boot with the time that it was suspended: the same for every
  // process of one boot, so it may be handed from one to another.
  virtual MonotonicTime SinceBoot() = 0;
  // Blocks the calling thread. Production code that must react to shutdown waits on a CondVar
  // instead.
  virtual void Sleep(absl::Duration duration) = 0;
};

// The machine's clocks. Lives for the whole process.
Clock& RealClock();

}  // namespace metal::base
