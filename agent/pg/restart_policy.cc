#include "agent/pg/restart_policy.h"

#include <algorithm>

namespace metal::pg {

int RestartPolicy::count(base::MonotonicTime now) {
  while (!granted_.empty() && now - granted_.front() >= window_) granted_.pop_front();
  return static_cast<int>(granted_.size());
}

std::optional<absl::Duration> RestartPolicy::NextDelay(base::MonotonicTime now) {
  const int used = count(now);
  if (used >= max_) return std::nullopt;
  granted_.push_back(now);
  if (used == 0) return absl::ZeroDuration();
  return std::min(absl::Seconds(1) * (int64_t{1} << std::min(used - 1, 10)), absl::Seconds(30));
}

}  // namespace metal::pg
