// How often a crashed server is restarted: at most `max_restarts` in `window`, with growing delays,
// then not at all. Threading: pure state of one thread.
#pragma once

#include <deque>
#include <optional>

#include "absl/time/time.h"
#include "agent/base/clock.h"

namespace metal::pg {

class RestartPolicy {
 public:
  RestartPolicy(int max_restarts, absl::Duration window) : max_(max_restarts), window_(window) {}
  // A crash happened now: the delay before the restart (0, 1, 2, 4 … at most 30 s), or nullopt:
  // quarantine.
  std::optional<absl::Duration> NextDelay(base::MonotonicTime now);
  // Restarts granted within the window that ends now.
  int count(base::MonotonicTime now);
  void Reset() { granted_.clear(); }

 private:
  const int max_;
  const absl::Duration window_;
  std::deque<base::MonotonicTime> granted_;
};

}  // namespace metal::pg
