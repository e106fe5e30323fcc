#include "agent/disk/prober_core.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/base/check.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/disk/probe_block.h"

namespace metal::disk {
namespace {

constexpr uint64_t kErrorsBeforeReopen =
    10;  // in a row: the file may be that of a filesystem that is gone
constexpr absl::Duration kDrainPatience = absl::Seconds(10);
// A transfer that is outstanding for so long tells all that others could, and a drive that answers
// none may be reset any moment: what is submitted during a reset waits in the kernel,
// uninterruptibly, and the agent could not even exit.
constexpr absl::Duration kStandsStill = absl::Seconds(2);
constexpr size_t kMostLatencies = 64;  // kept for one second's judgement
constexpr char kCut[] = "the probe file was cut by another program; it is made anew";

std::string Describe(bool is_write, uint32_t block, int32_t result) {
  const std::string_view verb = is_write ? "write" : "read";
  if (result < 0) return fmt::format("{} block {}: {}", verb, block, strerror(-result));
  return fmt::format("{} block {}: {} bytes instead of {}", verb, block, result, kProbeBlockSize);
}

// Its status has lost the kernel's number.
ProbeOutcome OutcomeOfOpen(const absl::Status& status) {
  if (absl::IsDataLoss(status)) return {.fault = ProbeFault::kMediaError, .result = kSomeError};
  if (absl::IsFailedPrecondition(status))
    return {.fault = ProbeFault::kReadOnly, .result = kSomeError};
  return {};
}

}  // namespace

ProberCore::ProberCore(ProberOptions options, std::unique_ptr<ProbeDevice> device,
                       base::Clock& clock)
    : options_(std::move(options)),
      device_(std::move(device)),
      clock_(clock),
      random_(std::random_device{}()),
      // Grows over restarts: a stamp of an earlier run is never taken for a later write.
      sequence_(static_cast<uint64_t>(absl::ToUnixNanos(clock.Now()))),
      written_(kProbeFileBlocks, 0),
      read_(options_.schedule.window),
      write_(options_.schedule.window) {}

void ProberCore::Run() {
  while (!stopping()) {
    if (OpenDevice()) Probe();
    MarkStep();
    device_->Close();
    ClearStep();
    // At once, but not again and again where somebody cuts it again and again.
    const bool soon = std::exchange(cut_, false) &&
                      clock_.Monotonic() - opened_ > options_.schedule.reopen_interval;
    if (!soon) WaitForReopen();
  }
  base::MutexLock lock(mutex_);
  seen_.phase = ProbePhase::kStopped;
  finished_ = true;
  changed_.NotifyAll();
}

bool ProberCore::OpenDevice() {
  {
    base::MutexLock lock(mutex_);
    // A retry keeps the reason of the last failure until there is something new to say.
    if (reason_.empty()) seen_.phase = ProbePhase::kOpening;
  }
  const absl::Status status = device_->Open([this] { MarkStep(); });
  ClearStep();
  base::MutexLock lock(mutex_);
  leaving_ = false;
  errors_in_a_row_ = 0;
  if (status.ok()) {
    seen_.phase = ProbePhase::kRunning;
    reason_.clear();
    return true;
  }
  reason_ = std::string(status.message());
  seen_.phase = absl::IsUnimplemented(status) ? ProbePhase::kUnsupported : ProbePhase::kUnavailable;
  if (const ProbeOutcome outcome = OutcomeOfOpen(status); outcome.fault != ProbeFault::kNone) {
    ++seen_.errors;
    seen_.on_time_in_a_row = 0;
    seen_.last_fault = outcome.fault;
    seen_.last_result = outcome.result;
    counts_.last_error = reason_;
  }
  return false;
}

void ProberCore::Probe() {
  const base::MonotonicTime start = clock_.Monotonic();
  opened_ = start;
  next_read_ = start;
  next_write_ = start + options_.schedule.write_interval / 2;  // not at the reads' beat
  write_waits_ = read_back_ = read_ahead_ = false;
  std::uniform_int_distribution<uint32_t> any_block(0, kProbeFileBlocks - 1);
  write_cursor_ = any_block(random_);
  std::fill(written_.begin(), written_.end(), 0);
  std::vector<ProbeCompletion> completions;
  while (true) {
    const bool winding_down = leaving_ || stopping();
    if (winding_down && outstanding_ == 0) break;
    base::MonotonicTime now = clock_.Monotonic();
    if (!winding_down) {
      IssueDue(now);
      IssueBurst(now);
    }
    completions.clear();
    device_->Wait(winding_down ? kDrainPatience : UntilNext(clock_.Monotonic()), completions);
    for (const ProbeCompletion& completion : completions) Finish(completion);
  }
  base::MutexLock lock(mutex_);
  if (burst_) {
    FinishBurst(*burst_,
                base::Error(absl::StatusCode::kFailedPrecondition, "probing of {} ended: {}",
                            options_.role, reason_.empty() ? "the target was removed" : reason_));
  }
}

void ProberCore::WaitForReopen() {
  base::MutexLock lock(mutex_);
  changed_.WaitFor(mutex_, options_.schedule.reopen_interval,
                   [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_; });
}

// A write follows a read that has just come back. On a device that stands still the submission of a
// write can wait in the kernel, uninterruptibly, for a journal that waits for the device (ext4, for
// the file's times), and then the agent cannot even exit. A read waits outside.
void ProberCore::IssueDue(base::MonotonicTime now) {
  const auto due = [&](base::MonotonicTime& next, absl::Duration interval) {
    if (now < next) return false;
    next = next + interval;
    if (next < now) next = now + interval;  // never catch up in a burst
    return true;
  };
  const bool held_back = Waits(now);
  bool read = due(next_read_, options_.schedule.read_interval);
  if (due(next_write_, options_.schedule.write_interval) && !write_waits_) {
    write_waits_ = true;
    read_back_ = false;
    read = true;
    next_read_ = now + options_.schedule.read_interval;
  }
  if (held_back) return;
  if (write_waits_ && read_back_) {
    write_waits_ = false;
    Start(true, now, nullptr);
  }
  if (!read) return;
  // That which is read before a write is what the write will replace: written a lap ago, and not
  // looked at since but by chance. Every other read is of any block, also where each goes before a
  // write: a lap may take an hour.
  read_ahead_ = write_waits_ && !read_ahead_;
  Start(false, now, nullptr, read_ahead_ ? std::optional(write_cursor_) : std::nullopt);
}

bool ProberCore::Waits(base::MonotonicTime now) const {
  return std::ranges::any_of(
      slots_, [&](const Slot& slot) { return slot.used && now - slot.since >= kStandsStill; });
}

void ProberCore::IssueBurst(base::MonotonicTime now) {
  std::shared_ptr<BurstState> burst;
  bool is_write = false;
  {
    base::MutexLock lock(mutex_);
    if (!burst_ || burst_->outstanding || !FreeSlot() || Waits(now)) return;
    burst = burst_;
    is_write = burst->started >= burst->burst.reads;
    ++burst->started;
    burst->outstanding = true;
  }
  Start(is_write, now, burst);
}

std::optional<uint32_t> ProberCore::FreeSlot() const {
  for (uint32_t slot = 0; slot < kProbeSlots; ++slot) {
    if (!slots_[slot].used) return slot;
  }
  return std::nullopt;
}

bool ProberCore::IsOutstanding(uint32_t block) const {
  return std::any_of(slots_.begin(), slots_.end(),
                     [&](const Slot& slot) { return slot.used && slot.block == block; });
}

void ProberCore::Start(bool is_write, base::MonotonicTime now,
                       const std::shared_ptr<BurstState>& burst, std::optional<uint32_t> wanted) {
  const std::optional<uint32_t> free = FreeSlot();
  if (!free) return;  // the age of what is outstanding tells the story
  std::uniform_int_distribution<uint32_t> any_block(0, kProbeFileBlocks - 1);
  uint32_t block = is_write ? write_cursor_ : wanted.value_or(any_block(random_));
  // A block under way in another slot would make what is read ambiguous.
  while (IsOutstanding(block)) block = (block + 1) % kProbeFileBlocks;
  uint64_t sequence = written_[block];
  if (is_write) {
    write_cursor_ = (block + 1) % kProbeFileBlocks;
    // Where every other block is read before its write, the others are in the next lap.
    if (write_cursor_ == 0) read_ahead_ = !read_ahead_;
    sequence = ++sequence_;
    written_[block] = 0;  // until confirmed, the block may hold anything
    StampBlock({options_.node_id, options_.role, block, sequence},
               ProbeBlock(device_->Buffer(*free).data(), kProbeBlockSize));
  }
  {
    base::MutexLock lock(mutex_);
    slots_[*free] = {.used = true,
                     .is_write = is_write,
                     .block = block,
                     .sequence = sequence,
                     .since = now,
                     .burst = burst};
  }
  ++outstanding_;
  // The slot has its time before the call: a submission that blocks is seen from outside as well.
  if (is_write) {
    device_->StartWrite(*free, block);
  } else {
    device_->StartRead(*free, block);
  }
}

void ProberCore::Finish(const ProbeCompletion& completion) {
  METAL_CHECK(completion.slot < kProbeSlots && slots_[completion.slot].used);
  const Slot slot = slots_[completion.slot];
  const base::MonotonicTime now = clock_.Monotonic();
  ProbeOutcome outcome = ClassifyProbeResult(slot.is_write, completion.result, kProbeBlockSize);
  std::string error;
  if (!outcome.ok) error = Describe(slot.is_write, slot.block, completion.result);
  if (outcome.ok && slot.is_write) written_[slot.block] = slot.sequence;
  if (outcome.ok && !slot.is_write && slot.sequence != 0) {
    const std::span<const std::byte, kProbeBlockSize> block(device_->Buffer(completion.slot).data(),
                                                            kProbeBlockSize);
    if (auto problem =
            CheckBlock({options_.node_id, options_.role, slot.block, slot.sequence}, block)) {
      outcome = {.fault = problem->lost_write ? ProbeFault::kLostWrite : ProbeFault::kCorruption};
      error = fmt::format("read block {}: {}", slot.block, problem->text);
      written_[slot.block] = 0;  // counted once
    }
  }
  // What a file that was cut answers: too little, or the zeros of a hole. Other bytes it does not.
  const bool too_little = completion.result >= 0 && completion.result < int32_t{kProbeBlockSize};
  if (!slot.is_write && !outcome.ok && (too_little || IsZero(completion)) && WasCut()) {
    outcome = {.no_verdict = true};
    error = kCut;
  }
  --outstanding_;
  if (!slot.is_write) read_back_ = true;
  if (outcome.unsupported) Leave(ProbePhase::kUnsupported, error);
  errors_in_a_row_ = outcome.ok ? 0 : errors_in_a_row_ + 1;
  if (errors_in_a_row_ >= kErrorsBeforeReopen) leaving_ = true;
  base::MutexLock lock(mutex_);
  slots_[completion.slot] = {};
  if (!error.empty()) counts_.last_error = error;
  Count(slot, outcome, now - slot.since, now);
  if (slot.burst) {
    if (!error.empty()) slot.burst->burst.last_error = error;
    CountBurst(*slot.burst, slot, outcome, now - slot.since);
  }
}

bool ProberCore::IsZero(const ProbeCompletion& completion) {
  return completion.result >= 0 &&
         std::ranges::all_of(device_->Buffer(completion.slot),
                             [](std::byte each) { return each == std::byte{0}; });
}

// Whoever is asked meanwhile is told this reason, and not that nothing is probed.
bool ProberCore::WasCut() {
  MarkStep();
  const bool cut = device_->WasCut();
  ClearStep();
  if (!cut) return false;
  if (!leaving_) {
    base::LogWarning("event=disk.probe_file_cut role={} message=\"{}\"", options_.role, kCut);
  }
  leaving_ = cut_ = true;
  base::MutexLock lock(mutex_);
  reason_ = kCut;
  return true;
}

void ProberCore::Count(const Slot& slot, const ProbeOutcome& outcome, absl::Duration latency,
                       base::MonotonicTime now) {
  if (!outcome.ok) {
    if (outcome.unsupported || outcome.no_verdict) return;
    ++seen_.errors;
    ++(slot.is_write ? counts_.write_errors : counts_.read_errors);
    seen_.on_time_in_a_row = 0;
    seen_.late_in_a_row = 0;
    seen_.last_fault = outcome.fault;
    seen_.last_result = outcome.result;
    return;
  }
  if (!slot.burst) {
    (slot.is_write ? write_ : read_).Record(latency, now);
    if (latencies_.size() < kMostLatencies) latencies_.push_back(latency);
    (slot.is_write ? recent_write_ : recent_read_).Record(latency);
  }
  if (latency < options_.late_after) {
    ++seen_.on_time;
    ++seen_.on_time_in_a_row;
    seen_.late_in_a_row = 0;
  } else {
    ++seen_.late;
    ++seen_.late_in_a_row;
    seen_.on_time_in_a_row = 0;
  }
}

void ProberCore::CountBurst(BurstState& state, const Slot& slot, const ProbeOutcome& outcome,
                            absl::Duration latency) {
  state.outstanding = false;
  ++(slot.is_write ? state.burst.writes_done : state.burst.reads_done);
  if (outcome.ok) {
    (slot.is_write ? state.write : state.read).Record(latency);
  } else {
    ++(slot.is_write ? state.burst.write_errors : state.burst.read_errors);
  }
  const bool all =
      state.burst.reads_done + state.burst.writes_done >= state.burst.reads + state.burst.writes;
  if (all && !state.finished) FinishBurst(state, absl::OkStatus());
}

void ProberCore::FinishBurst(BurstState& state, absl::Status status) {
  state.finished = true;
  state.status = std::move(status);
  if (burst_.get() == &state) burst_.reset();
  changed_.NotifyAll();
}

absl::Duration ProberCore::UntilNext(base::MonotonicTime now) const {
  return std::max(std::min(next_read_ - now, next_write_ - now), absl::ZeroDuration());
}

bool ProberCore::stopping() {
  base::MutexLock lock(mutex_);
  return stop_;
}

void ProberCore::MarkStep() {
  const base::MonotonicTime now = clock_.Monotonic();
  base::MutexLock lock(mutex_);
  step_since_ = now;
}

void ProberCore::ClearStep() {
  base::MutexLock lock(mutex_);
  step_since_.reset();
}

void ProberCore::Leave(ProbePhase phase, std::string reason) {
  leaving_ = true;
  base::MutexLock lock(mutex_);
  seen_.phase = phase;
  reason_ = std::move(reason);
}

}  // namespace metal::disk
