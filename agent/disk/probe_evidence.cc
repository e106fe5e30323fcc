#include "agent/disk/probe_evidence.h"

#include <utility>

namespace metal::disk {

std::optional<FaultClass> FaultClassOf(ProbeState state, ProbeFault fault) {
  if (state == ProbeState::kStalled) return FaultClass::kStalled;
  if (state == ProbeState::kSlow) return FaultClass::kSlow;
  if (state != ProbeState::kFaulted) return std::nullopt;
  switch (fault) {
    case ProbeFault::kNone:
      return std::nullopt;
    case ProbeFault::kMediaError:
      return FaultClass::kMediaError;
    case ProbeFault::kWriteError:
      return FaultClass::kWriteError;
    case ProbeFault::kGone:
      return FaultClass::kGone;
    case ProbeFault::kReadOnly:  // EROFS: ext4 with an aborted journal, or mounted so
      return FaultClass::kFilesystemShutdown;
    case ProbeFault::kFull:
      return FaultClass::kFull;
    case ProbeFault::kCorruption:
      return FaultClass::kCorruption;
    case ProbeFault::kLostWrite:
      return FaultClass::kLostWrite;
  }
  return std::nullopt;
}

namespace {

// A sector that was lost stays lost when the next one is well; a drive that is there is not gone.
bool IsOfEvents(FaultClass fault_class) {
  return fault_class == FaultClass::kMediaError || fault_class == FaultClass::kWriteError ||
         fault_class == FaultClass::kCorruption || fault_class == FaultClass::kLostWrite;
}

ProbeResult ResultOfError(const TargetView& target) {
  if (target.fault == ProbeFault::kCorruption) return ProbeResult::kOtherBytes;
  if (target.fault == ProbeFault::kLostWrite) return ProbeResult::kOldBytes;
  return target.last_result < 0 ? ProbeResult::kFailed : ProbeResult::kShort;
}

Evidence Told(const TargetView& target, FaultClass fault_class, ProbeResult result) {
  Evidence evidence;
  evidence.fault_class = fault_class;
  evidence.witness = Witness::kProbe;
  if (target.stack && !target.stack->disks.empty()) {
    evidence.device = target.stack->disks.front().name;
  }
  evidence.role = target.role;
  evidence.text = StateText(target);
  evidence.time = target.state_since;
  evidence.probe_result = result;
  if (result == ProbeResult::kUnanswered) evidence.outstanding = target.oldest_outstanding;
  if (result == ProbeResult::kFailed && target.last_result != kSomeError)
    evidence.error_number = -target.last_result;
  return evidence;
}

}  // namespace

std::optional<Evidence> EvidenceOf(const TargetView& target) {
  const auto fault_class = FaultClassOf(target.state, target.fault);
  if (!fault_class || IsOfEvents(*fault_class)) return std::nullopt;
  if (target.state == ProbeState::kStalled)
    return Told(target, *fault_class, ProbeResult::kUnanswered);
  if (target.state == ProbeState::kSlow) return Told(target, *fault_class, ProbeResult::kLate);
  return Told(target, *fault_class, ResultOfError(target));
}

std::optional<Evidence> ErrorEvidenceOf(const TargetView& target, uint64_t count) {
  const auto fault_class = FaultClassOf(ProbeState::kFaulted, target.fault);
  if (!fault_class || !IsOfEvents(*fault_class)) return std::nullopt;
  Evidence evidence = Told(target, *fault_class, ResultOfError(target));
  evidence.delta = static_cast<int64_t>(count);
  return evidence;
}

Evidence Withdrawn(Evidence former, ProbeState state) {
  // What comes back late, or with an error, stands still no more.
  const bool moves = former.fault_class == FaultClass::kStalled &&
                     (state == ProbeState::kSlow || state == ProbeState::kFaulted);
  former.clears = state == ProbeState::kHealthy || moves;
  former.retracts = !former.clears;
  return former;
}

}  // namespace metal::disk
