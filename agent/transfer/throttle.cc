#include "agent/transfer/throttle.h"

#include <algorithm>

namespace metal::transfer {
namespace {

constexpr absl::Duration kBurst = absl::Milliseconds(200);

}  // namespace

absl::Duration Throttle::Book(uint64_t bytes) {
  if (rate_ == 0) return absl::ZeroDuration();
  const absl::Duration now = clock_.Monotonic().since_start;
  const absl::Duration takes =
      absl::Seconds(static_cast<double>(bytes) / static_cast<double>(rate_));
  base::MutexLock lock(mutex_);
  const absl::Duration begin = std::max(free_at_, now - kBurst);
  free_at_ = begin + takes;
  return std::max(begin - now, absl::ZeroDuration());
}

}  // namespace metal::transfer
