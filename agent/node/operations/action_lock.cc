#include "agent/node/operations/action_lock.h"

#include <algorithm>

#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::node {

void ActionLock::Holder::Release() {
  if (lock_ == nullptr) return;
  base::MutexLock lock(lock_->mutex_);
  lock_->held_ = false;
  lock_->name_.clear();
  lock_->kind_.clear();
  lock_ = nullptr;
}

absl::StatusOr<ActionLock::Holder> ActionLock::TryAcquire(const std::string& name,
                                                          const std::string& kind) {
  const base::MonotonicTime now = clock_.Monotonic();
  base::MutexLock lock(mutex_);
  if (held_) {
    const int64_t age = std::max<int64_t>(0, absl::ToInt64Seconds(now - since_));
    return base::WithReason(
        base::Error(
            absl::StatusCode::kAborted,
            "{} refused: {} ({}) has been changing this node for {} s. HINT: wait for it, or "
            "cancel it",
            kind, kind_, name_, age),
        {.reason = "ACTION_IN_PROGRESS",
         .metadata = {
             {"holder", name_}, {"holder_kind", kind_}, {"age_seconds", fmt::format("{}", age)}}});
  }
  held_ = true;
  name_ = name;
  kind_ = kind;
  since_ = now;
  return Holder(this);
}

std::optional<ActionLock::Info> ActionLock::Current() const {
  const base::MonotonicTime now = clock_.Monotonic();
  base::MutexLock lock(mutex_);
  if (!held_) return std::nullopt;
  return Info{name_, kind_, now - since_};
}

}  // namespace metal::node
