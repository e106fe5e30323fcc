#include "agent/base/clock.h"

#include <ctime>

namespace metal::base {
namespace {

class SystemClock final : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  MonotonicTime Monotonic() override {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return {absl::DurationFromTimespec(now)};
  }
  MonotonicTime SinceBoot() override {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return {absl::DurationFromTimespec(now)};
  }
  void Sleep(absl::Duration duration) override { absl::SleepFor(duration); }
};

}  // namespace

Clock& RealClock() {
  static SystemClock clock;
  return clock;
}

}  // namespace metal::base
