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

absl::Duration Throttle::Book(uint64_t bytes, uint64_t bytes_of_whole) {
  const absl::Duration others =
      whole_ != nullptr ? whole_->Book(bytes_of_whole) : absl::ZeroDuration();
  const absl::Duration now = clock_.Monotonic().since_start;
  MutexLock lock(mutex_);
  booked_ += bytes;
  if (rate_ == 0) return others;
  const absl::Duration takes =
      absl::Seconds(static_cast<double>(bytes) / static_cast<double>(rate_));
  const absl::Duration begin = std::max(free_at_, now - kBurst);
  free_at_ = begin + takes;
  return std::max(begin - now, others);
}

void Throttle::SetRate(uint64_t bytes_per_second) {
  MutexLock lock(mutex_);
  rate_ = bytes_per_second;
}

uint64_t Throttle::booked() const {
  MutexLock lock(mutex_);
  return booked_;
}

}  // namespace metal::base
