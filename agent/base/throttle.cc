#include "agent/base/throttle.h"

#include <algorithm>

#include "agent/base/status.h"

namespace metal::base {
namespace {

constexpr absl::Duration kBurst = absl::Milliseconds(200);

constexpr uint64_t kLowestRate = 1 << 20;

}  // namespace

absl::Status Throttle::CheckRate(uint64_t bytes_per_second) {
  if (bytes_per_second == 0 || bytes_per_second >= kLowestRate) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument,
               "bytes_per_second_max is {}. HINT: at least {}, or 0 for no limit", bytes_per_second,
               kLowestRate);
}

absl::Duration Throttle::Book(uint64_t bytes) {
  if (rate_ == 0) return absl::ZeroDuration();
  const absl::Duration now = clock_.Monotonic().since_start;
  const absl::Duration takes =
      absl::Seconds(static_cast<double>(bytes) / static_cast<double>(rate_));
  MutexLock lock(mutex_);
  const absl::Duration begin = std::max(free_at_, now - kBurst);
  free_at_ = begin + takes;
  return std::max(begin - now, absl::ZeroDuration());
}

absl::Duration Throttle::Wait() const {
  MutexLock lock(mutex_);
  return std::max(free_at_ - clock_.Monotonic().since_start, absl::ZeroDuration());
}

}  // namespace metal::base
