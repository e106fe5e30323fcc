// What the probes of one target say about its device: a pure state machine with its transitions as
// a table. Deadlines are judged here from the age of what is outstanding, so a probe that never
// returns is seen as well as a slow one.
// Threading: a ProbeStateMachine belongs to one thread (the supervisor's); it never does I/O and
// reads no clock.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "agent/base/clock.h"

namespace metal::disk {

enum class ProbeState : uint8_t { kUnknown, kHealthy, kSlow, kStalled, kFaulted, kUnsupported };
std::string_view ProbeStateName(ProbeState state);  // "unknown", "healthy", …

// What the prober does at this moment.
enum class ProbePhase : uint8_t {
  kOpening,      // preparing its file; may hang with the device
  kRunning,      // probing
  kUnavailable,  // the file could not be prepared; tries again later; `reason` says why
  kUnsupported,  // this filesystem or kernel cannot be probed; `reason` says why
  kStopped
};

// Why a probe failed. Names are the fault classes of the status: "media_error", "write_error", …
enum class ProbeFault : uint8_t {
  kNone,
  kMediaError,
  kWriteError,
  kGone,
  kReadOnly,
  kFull,
  kCorruption,
  kLostWrite
};
std::string_view ProbeFaultName(ProbeFault fault);  // "" for kNone

// Classifies one completion: result ≥ 0 is a byte count (0 of a read: the device is gone), < 0 is
// −errno.
inline constexpr int32_t kSomeError = INT32_MIN;  // failed, and with which errno is not known
struct ProbeOutcome {
  bool ok = false;
  bool unsupported = false;  // EINVAL, EOPNOTSUPP, ENOSYS
  // The machine lacks something (memory, a tag), or the request was called off: nothing was learnt
  // of the device.
  bool no_verdict = false;
  ProbeFault fault = ProbeFault::kNone;
  int32_t result = 0;  // of a failed one: as the kernel gave it
};
ProbeOutcome ClassifyProbeResult(bool is_write, int32_t result, uint32_t expected_bytes);

struct ProbeLimits {
  absl::Duration late_after = absl::Milliseconds(250);
  absl::Duration stall_after = absl::Seconds(3);  // age of the oldest outstanding probe
  int late_in_a_row = 3;                          // late completions that make it slow
  int on_time_in_a_row = 3;                       // completions in time that make it healthy
  int on_time_to_leave_slow = 20;  // more of them, so that a busy device does not flap
  absl::Duration fault_hold = absl::Seconds(60);  // without a further error before a fault ends
  absl::Duration silent_after =
      absl::Seconds(30);  // running, nothing outstanding, nothing completed
};

// Monotone counters of a prober and its present situation, as seen from outside.
struct ProbeObservation {
  ProbePhase phase = ProbePhase::kOpening;
  std::optional<absl::Duration> oldest_outstanding;  // also of a blocked open or submission
  uint64_t on_time = 0, late = 0, errors = 0;        // completions since start
  uint64_t on_time_in_a_row = 0;  // completions in time since the last late one or error
  uint64_t late_in_a_row = 0;
  ProbeFault last_fault = ProbeFault::kNone;
  int32_t last_result = 0;  // of the last error; ≥ 0: the bytes were wrong or too few
};

// What one observation means, most serious first.
enum class ProbeSignal : uint8_t {
  kUnsupported,  // the phase says so
  kError,        // a new error
  kStall,        // oldest outstanding ≥ stall_after
  kUnavailable,  // no probe file, or still opening
  kSilent,       // nothing for silent_after
  kLate,         // enough late ones in a row (one that is outstanding for late_after counts)
  kWorking,      // enough completions in time, no error for fault_hold
  kAfterError,   // enough completions in time, but the last error is recent
  kNothing,      // no news
};
std::string_view ProbeSignalName(ProbeSignal signal);

struct ProbeTransition {
  ProbeState from;
  ProbeSignal signal;
  ProbeState to;
};
// Every (state, signal) pair that changes the state; a pair that is not listed keeps it.
std::span<const ProbeTransition> ProbeTransitions();
ProbeState NextProbeState(ProbeState from, ProbeSignal signal);

class ProbeStateMachine {
 public:
  explicit ProbeStateMachine(ProbeLimits limits) : limits_(limits) {}
  // Takes one observation at monotonic time `now`; answers the signal it stood for. `now` never
  // goes backwards.
  ProbeSignal Observe(const ProbeObservation& observation, base::MonotonicTime now);
  // Another prober is watched from here on, of which this is known: its counters say nothing of
  // what was before.
  void Follow(const ProbeObservation& observation) { last_ = observation; }
  ProbeState state() const { return state_; }
  // What the last error was, while the state is kFaulted; else kNone.
  ProbeFault fault() const { return state_ == ProbeState::kFaulted ? fault_ : ProbeFault::kNone; }

 private:
  ProbeSignal Judge(const ProbeObservation& observation, base::MonotonicTime now);

  const ProbeLimits limits_;
  ProbeState state_ = ProbeState::kUnknown;
  ProbeFault fault_ = ProbeFault::kNone;
  ProbeObservation last_;
  std::optional<base::MonotonicTime> last_error_;
  std::optional<base::MonotonicTime> last_completion_;
};

}  // namespace metal::disk
