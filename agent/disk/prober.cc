#include "agent/disk/prober.h"

#include "agent/base/status.h"
#include "agent/disk/prober_core.h"

namespace metal::disk {

// The part of ProberCore that other threads call.

ProbeObservation ProberCore::Observe() {
  const base::MonotonicTime now = clock_.Monotonic();
  base::MutexLock lock(mutex_);
  ProbeObservation observation = seen_;
  std::optional<base::MonotonicTime> oldest = step_since_;
  for (const Slot& slot : slots_) {
    if (slot.used && (!oldest || slot.since < *oldest)) oldest = slot.since;
  }
  if (oldest) observation.oldest_outstanding = std::max(now - *oldest, absl::ZeroDuration());
  return observation;
}

std::string ProberCore::reason() {
  base::MutexLock lock(mutex_);
  return reason_;
}

std::vector<absl::Duration> ProberCore::TakeLatencies() {
  const base::MonotonicTime now = clock_.Monotonic();
  base::MutexLock lock(mutex_);
  std::vector<absl::Duration> taken = latencies_;
  latencies_.clear();
  for (const Slot& slot : slots_) {
    if (slot.used && !slot.burst) taken.push_back(std::max(now - slot.since, absl::ZeroDuration()));
  }
  return taken;
}

ProbeCounts ProberCore::Counts() {
  const base::MonotonicTime now = clock_.Monotonic();
  base::MutexLock lock(mutex_);
  ProbeCounts counts = counts_;
  counts.late = seen_.late;
  counts.read = read_.Summary(now);
  counts.write = write_.Summary(now);
  return counts;
}

RecentProbes ProberCore::TakeRecent() {
  const ProbeObservation seen = Observe();
  RecentProbes recent;
  recent.errors = seen.errors;
  recent.late = seen.late;
  recent.oldest_outstanding = seen.oldest_outstanding;
  base::MutexLock lock(mutex_);
  recent.read = recent_read_.Summary();
  recent.write = recent_write_.Summary();
  recent_read_.Reset();
  recent_write_.Reset();
  return recent;
}

std::vector<std::pair<absl::Duration, uint64_t>> ProberCore::Buckets(bool writes) {
  const base::MonotonicTime now = clock_.Monotonic();
  base::MutexLock lock(mutex_);
  return (writes ? write_ : read_).Buckets(now);
}

absl::Status ProberCore::StartBurst(const std::shared_ptr<BurstState>& burst) {
  base::MutexLock lock(mutex_);
  if (seen_.phase != ProbePhase::kRunning) {
    return base::Error(absl::StatusCode::kFailedPrecondition, "probe {}: not ready: {}",
                       options_.role, reason_.empty() ? "the probe file is being opened" : reason_);
  }
  if (burst_) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "probe {}: another measurement is running", options_.role);
  }
  burst_ = burst;
  device_->Wake();
  return absl::OkStatus();
}

bool ProberCore::WaitBurst(const std::shared_ptr<BurstState>& burst, absl::Duration timeout,
                           ProbeBurst& copy) {
  base::MutexLock lock(mutex_);
  const bool finished = changed_.WaitFor(mutex_, timeout, [&] { return burst->finished; });
  copy = burst->burst;
  copy.read = burst->read.Summary();
  copy.write = burst->write.Summary();
  return finished;
}

void ProberCore::EndBurst(const std::shared_ptr<BurstState>& burst) {
  base::MutexLock lock(mutex_);
  if (burst_ == burst) burst_.reset();
}

void ProberCore::RequestStop() {
  base::MutexLock lock(mutex_);
  stop_ = true;
  changed_.NotifyAll();
  device_->Wake();
}

bool ProberCore::WaitFinished(absl::Duration timeout) {
  base::MutexLock lock(mutex_);
  return changed_.WaitFor(mutex_, timeout,
                          [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return finished_; });
}

Prober::Prober(ProberOptions options, std::unique_ptr<ProbeDevice> device, base::Clock& clock)
    : core_(std::make_shared<ProberCore>(options, std::move(device), clock)),
      thread_("probe-" + options.role, [core = core_] { core->Run(); }) {}

Prober::~Prober() { Stop(absl::Milliseconds(500)); }

ProbeObservation Prober::Observe() { return core_->Observe(); }
std::string Prober::reason() { return core_->reason(); }
ProbeCounts Prober::Counts() { return core_->Counts(); }
std::vector<absl::Duration> Prober::TakeLatencies() { return core_->TakeLatencies(); }
RecentProbes Prober::TakeRecent() { return core_->TakeRecent(); }
std::vector<std::pair<absl::Duration, uint64_t>> Prober::Buckets(bool writes) {
  return core_->Buckets(writes);
}

absl::Status Prober::RunBurst(ProbeBurst& burst, absl::Duration timeout,
                              const std::function<bool(uint32_t)>& done) {
  auto state = std::make_shared<BurstState>();
  state->burst.reads = burst.reads;
  state->burst.writes = burst.writes;
  if (burst.reads + burst.writes == 0) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(core_->StartBurst(state));
  const base::MonotonicTime deadline = core_->clock().Monotonic() + timeout;
  while (!core_->WaitBurst(state, absl::Milliseconds(100), burst)) {
    const uint32_t completed = burst.reads_done + burst.writes_done;
    if (!done(completed)) {
      core_->EndBurst(state);
      return base::Error(absl::StatusCode::kCancelled, "storage probe was cancelled");
    }
    if (core_->clock().Monotonic() >= deadline) {
      core_->EndBurst(state);
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "storage probe: {} of {} probes came back within {}", completed,
                         burst.reads + burst.writes, absl::FormatDuration(timeout));
    }
  }
  done(burst.reads_done + burst.writes_done);
  return state->status;
}

void Prober::AskToStop() { core_->RequestStop(); }

bool Prober::Stop(absl::Duration patience) {
  base::MutexLock lock(mutex_);
  if (left_behind_) return false;
  if (!thread_.joinable()) return true;
  core_->RequestStop();
  if (core_->WaitFinished(patience)) {
    thread_.Join();
    return true;
  }
  thread_.Detach();
  left_behind_ = true;
  return false;
}

}  // namespace metal::disk
