#include "agent/observe/progress.h"

#include <algorithm>

#include "agent/base/status.h"

namespace metal::observe {
namespace {

// A rate is taken over at least this long, and older motion fades with this weight.
constexpr absl::Duration kRateStep = absl::Milliseconds(500);
constexpr absl::Duration kRateMemory = absl::Seconds(5);

}  // namespace

Progress::Progress(base::Clock& clock)
    : clock_(clock), phase_start_(clock.Monotonic()), rate_time_(phase_start_) {}

void Progress::BeginPhase(std::string phase, uint64_t total_bytes) {
  {
    base::MutexLock lock(mutex_);
    phase_ = phase;
    phase_start_ = clock_.Monotonic();
    rate_time_ = phase_start_;
    rate_done_ = 0;
    rate_ = 0;
    done_.store(0, std::memory_order_relaxed);
    total_.store(total_bytes, std::memory_order_relaxed);
  }
  if (observer_) observer_(phase);
}

ProgressSnapshot Progress::Snapshot() {
  base::MutexLock lock(mutex_);
  const base::MonotonicTime now = clock_.Monotonic();
  ProgressSnapshot snapshot;
  snapshot.phase = phase_;
  snapshot.done_bytes = done_.load(std::memory_order_relaxed);
  snapshot.total_bytes = total_.load(std::memory_order_relaxed);
  snapshot.phase_elapsed = now - phase_start_;

  const absl::Duration step = now - rate_time_;
  if (step >= kRateStep) {
    const uint64_t moved = snapshot.done_bytes > rate_done_ ? snapshot.done_bytes - rate_done_ : 0;
    const double newest = static_cast<double>(moved) / absl::ToDoubleSeconds(step);
    // The first measurement of a phase stands alone; later ones are weighted by how long they
    // cover.
    const double weight =
        rate_time_ == phase_start_ ? 1 : std::min(1.0, absl::FDivDuration(step, kRateMemory));
    rate_ += weight * (newest - rate_);
    rate_time_ = now;
    rate_done_ = snapshot.done_bytes;
  }
  snapshot.bytes_per_second = rate_;
  if (snapshot.total_bytes != 0) {
    const uint64_t left =
        snapshot.total_bytes > snapshot.done_bytes ? snapshot.total_bytes - snapshot.done_bytes : 0;
    if (left == 0)
      snapshot.eta = absl::ZeroDuration();
    else if (rate_ > 0)
      snapshot.eta = absl::Seconds(static_cast<double>(left) / rate_);
  }
  return snapshot;
}

absl::Status Progress::CheckCancelled() const {
  if (!cancelled()) return absl::OkStatus();
  return base::Error(absl::StatusCode::kCancelled, "operation was cancelled");
}

void Progress::SetPhaseObserver(std::function<void(const std::string& phase)> observer) {
  observer_ = std::move(observer);
}

}  // namespace metal::observe
