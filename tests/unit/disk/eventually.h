// Waiting for what another thread does. Threading: any.
#pragma once

#include <functional>

#include "absl/time/time.h"
#include "agent/base/clock.h"

namespace metal::disk {

// Whether the condition comes to hold within ten seconds.
inline bool Eventually(const std::function<bool()>& condition) {
  base::Clock& clock = base::RealClock();
  const base::MonotonicTime deadline = clock.Monotonic() + absl::Seconds(10);
  while (clock.Monotonic() < deadline) {
    if (condition()) return true;
    clock.Sleep(absl::Milliseconds(2));
  }
  return false;
}

}  // namespace metal::disk
