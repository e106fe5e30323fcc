#include "agent/backup/memory_budget.h"

#include <algorithm>

#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kPollCancel = absl::Milliseconds(100);

}  // namespace

MemoryShare::~MemoryShare() {
  if (budget_ != nullptr) budget_->GiveBack(bytes_);
}

absl::StatusOr<MemoryShare> MemoryBudget::Take(base::ByteCount wanted, base::ByteCount least,
                                               observe::Progress& progress) {
  // Told once, not under the lock: it is journaled.
  int looks = 0;
  return Take(wanted, least, [&] {
    if (++looks == 2) progress.BeginPhase("waiting for memory of other operations");
    return progress.CheckCancelled();
  });
}

absl::StatusOr<MemoryShare> MemoryBudget::Take(base::ByteCount wanted, base::ByteCount least,
                                               const std::function<absl::Status()>& check) {
  if (least > total_) {
    return base::Error(absl::StatusCode::kResourceExhausted,
                       "backup.memory is {}, this operation needs {}. HINT: raise backup.memory",
                       total_.ToString(), least.ToString());
  }
  for (absl::Duration wait;; wait = kPollCancel) {
    METAL_RETURN_IF_ERROR(check());
    base::MutexLock lock(mutex_);
    const auto enough = [&] { return free_ >= least; };
    if (enough() || (wait > absl::ZeroDuration() && returned_.WaitFor(mutex_, wait, enough))) {
      return TakeLocked(wanted, least);
    }
  }
}

MemoryShare MemoryBudget::TakeLocked(base::ByteCount wanted, base::ByteCount least) {
  const uint64_t fair = std::max(free_.value / 4 * 3, least.value);
  const base::ByteCount bytes{std::clamp(wanted.value, least.value, fair)};
  free_.value -= bytes.value;
  return MemoryShare(this, bytes);
}

base::ByteCount MemoryBudget::free() const {
  base::MutexLock lock(mutex_);
  return free_;
}

void MemoryBudget::GiveBack(base::ByteCount bytes) {
  base::MutexLock lock(mutex_);
  free_ += bytes;
  returned_.NotifyAll();
}

}  // namespace metal::backup
