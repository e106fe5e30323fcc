#include "agent/disk/probe_state.h"

#include <cerrno>

namespace metal::disk {
namespace {

using State = ProbeState;
using Signal = ProbeSignal;

// "Unavailable" and "silent" are no evidence about the device: they never lead to stalled or
// faulted. A fault ends only through kWorking, after a while without errors: completions in time
// alone do not make a drive that lost data good again.
constexpr ProbeTransition kTransitions[] = {
    {State::kUnknown, Signal::kUnsupported, State::kUnsupported},
    {State::kUnknown, Signal::kError, State::kFaulted},
    {State::kUnknown, Signal::kStall, State::kStalled},
    {State::kUnknown, Signal::kLate, State::kSlow},
    {State::kUnknown, Signal::kAfterError, State::kFaulted},
    {State::kUnknown, Signal::kWorking, State::kHealthy},

    {State::kHealthy, Signal::kUnsupported, State::kUnsupported},
    {State::kHealthy, Signal::kError, State::kFaulted},
    {State::kHealthy, Signal::kStall, State::kStalled},
    {State::kHealthy, Signal::kUnavailable, State::kUnknown},
    {State::kHealthy, Signal::kLate, State::kSlow},
    {State::kHealthy, Signal::kSilent, State::kUnknown},

    {State::kSlow, Signal::kUnsupported, State::kUnsupported},
    {State::kSlow, Signal::kError, State::kFaulted},
    {State::kSlow, Signal::kStall, State::kStalled},
    {State::kSlow, Signal::kUnavailable, State::kUnknown},
    {State::kSlow, Signal::kWorking, State::kHealthy},
    {State::kSlow, Signal::kAfterError, State::kFaulted},
    {State::kSlow, Signal::kSilent, State::kUnknown},

    {State::kStalled, Signal::kUnsupported, State::kUnsupported},
    {State::kStalled, Signal::kError, State::kFaulted},
    {State::kStalled, Signal::kUnavailable, State::kUnknown},
    {State::kStalled, Signal::kLate, State::kSlow},
    {State::kStalled, Signal::kWorking, State::kHealthy},
    {State::kStalled, Signal::kAfterError, State::kFaulted},
    {State::kStalled, Signal::kSilent, State::kUnknown},

    {State::kFaulted, Signal::kStall, State::kStalled},
    {State::kFaulted, Signal::kWorking, State::kHealthy},

    {State::kUnsupported, Signal::kError, State::kFaulted},
    {State::kUnsupported, Signal::kStall, State::kStalled},
    {State::kUnsupported, Signal::kUnavailable, State::kUnknown},
    {State::kUnsupported, Signal::kLate, State::kSlow},
    {State::kUnsupported, Signal::kWorking, State::kHealthy},
};

}  // namespace

std::string_view ProbeStateName(ProbeState state) {
  static constexpr std::string_view kNames[] = {"unknown", "healthy", "slow",
                                                "stalled", "faulted", "unsupported"};
  return kNames[static_cast<size_t>(state)];
}

std::string_view ProbeFaultName(ProbeFault fault) {
  static constexpr std::string_view kNames[] = {
      "", "media_error", "write_error", "gone", "read_only", "full", "corruption", "lost_write"};
  return kNames[static_cast<size_t>(fault)];
}

std::string_view ProbeSignalName(ProbeSignal signal) {
  static constexpr std::string_view kNames[] = {"unsupported", "error",       "stall",
                                                "unavailable", "silent",      "late",
                                                "working",     "after_error", "nothing"};
  return kNames[static_cast<size_t>(signal)];
}

ProbeOutcome ClassifyProbeResult(bool is_write, int32_t result, uint32_t expected_bytes) {
  const ProbeFault generic = is_write ? ProbeFault::kWriteError : ProbeFault::kMediaError;
  if (result >= 0) {
    if (static_cast<uint32_t>(result) == expected_bytes) return {.ok = true};
    // After a surprise removal the kernel answers reads with 0 bytes and no error.
    if (!is_write && result == 0) return {.fault = ProbeFault::kGone, .result = result};
    return {.fault = generic, .result = result};
  }
  switch (-result) {
    case EINVAL:
    case EOPNOTSUPP:
    case ENOSYS:
      return {.unsupported = true};
    case ENOMEM:
    case EAGAIN:
    case EINTR:
    case ECANCELED:
    case ENOBUFS:
      return {.no_verdict = true, .result = result};
    case ENODEV:
    case ENXIO:
    case ENOMEDIUM:
      return {.fault = ProbeFault::kGone, .result = result};
    case EROFS:
      return {.fault = ProbeFault::kReadOnly, .result = result};
    case ENOSPC:
    case EDQUOT:
      return {.fault = ProbeFault::kFull, .result = result};
    default:
      return {.fault = generic, .result = result};
  }
}

std::span<const ProbeTransition> ProbeTransitions() { return kTransitions; }

ProbeState NextProbeState(ProbeState from, ProbeSignal signal) {
  for (const ProbeTransition& row : kTransitions) {
    if (row.from == from && row.signal == signal) return row.to;
  }
  return from;
}

ProbeSignal ProbeStateMachine::Judge(const ProbeObservation& seen, base::MonotonicTime now) {
  const bool new_error = seen.errors > last_.errors;
  if (new_error) last_error_ = now;
  if (seen.on_time + seen.late > last_.on_time + last_.late) last_completion_ = now;
  if (!last_completion_) last_completion_ = now;

  const absl::Duration age = seen.oldest_outstanding.value_or(absl::ZeroDuration());
  if (seen.phase == ProbePhase::kUnsupported) return Signal::kUnsupported;
  if (new_error) return Signal::kError;
  if (age >= limits_.stall_after) return Signal::kStall;
  if (seen.phase != ProbePhase::kRunning) return Signal::kUnavailable;
  if (!seen.oldest_outstanding && now - *last_completion_ >= limits_.silent_after) {
    return Signal::kSilent;
  }
  // A probe outstanding for long counts once; before the run of late ones is complete nothing is
  // said.
  const uint64_t late_run = seen.late_in_a_row + (age >= limits_.late_after ? 1 : 0);
  if (late_run >= static_cast<uint64_t>(limits_.late_in_a_row)) return Signal::kLate;
  if (state_ == State::kStalled && late_run > 0) return Signal::kLate;
  const int needed =
      state_ == State::kSlow ? limits_.on_time_to_leave_slow : limits_.on_time_in_a_row;
  if (age < limits_.late_after && seen.on_time_in_a_row >= static_cast<uint64_t>(needed)) {
    const bool held = last_error_ && now - *last_error_ < limits_.fault_hold;
    return held ? Signal::kAfterError : Signal::kWorking;
  }
  return Signal::kNothing;
}

ProbeSignal ProbeStateMachine::Observe(const ProbeObservation& observation,
                                       base::MonotonicTime now) {
  const ProbeSignal signal = Judge(observation, now);
  state_ = NextProbeState(state_, signal);
  if (signal == Signal::kError) fault_ = observation.last_fault;
  last_ = observation;
  return signal;
}

}  // namespace metal::disk
