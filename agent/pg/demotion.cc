#include "agent/pg/demotion.h"

#include <algorithm>
#include <csignal>

#include "agent/base/proc.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(5);
constexpr absl::Duration kLookAtSenders = absl::Milliseconds(100);

bool SendersLeft(const PostmasterPlace& place) {
  const std::vector<pid_t> pids = ListServerProcesses(place);
  return std::ranges::any_of(pids, [](pid_t pid) {
    return base::ProcessCommandLine(pid).find("walsender") != std::string::npos;
  });
}

absl::Status Late(const Postmaster& postmaster, absl::Duration timeout, std::string_view state) {
  return base::WithReason(
      base::Error(absl::StatusCode::kDeadlineExceeded,
                  "process {} has not shut down within {} (pg_control: {}); the shutdown stays "
                  "requested. HINT: it ends when its disk and its standbys answer; Fence ends it "
                  "by force",
                  postmaster.pid(), absl::FormatDuration(timeout), state),
      {"STOP_TIMEOUT", {{"mode", "fast"}}});
}

// Waits for the walsenders, then for the process, which is ended when only others are left.
absl::Status AwaitHandover(const Postmaster& postmaster, const PostmasterPlace& place,
                           const DemotionStop& options, base::Clock& clock) {
  const base::MonotonicTime deadline = clock.Monotonic() + options.handover;
  while (!postmaster.WaitExit(kLookAtSenders)) {
    if (clock.Monotonic() < deadline && SendersLeft(place)) continue;
    const absl::Status ended = postmaster.Signal(SIGQUIT);
    if (!ended.ok() && !absl::IsNotFound(ended)) return ended;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status StopForDemotion(const Postmaster& postmaster, const PostmasterPlace& place,
                             const DemotionStop& options, base::Clock& clock) {
  const absl::Status signalled = postmaster.Signal(SIGINT);
  if (!signalled.ok() && !absl::IsNotFound(signalled)) return signalled;
  const base::MonotonicTime deadline = clock.Monotonic() + options.timeout;
  while (true) {
    const bool exited = postmaster.WaitExit(kPoll);
    const absl::StatusOr<ControlFile> control = ReadControlFile(place.data_dir);
    const std::string_view state = control.ok() ? ControlStateName(control->state) : "unreadable";
    if (control.ok() && control->state == ControlState::kShutDown) {
      if (options.on_shut_down) options.on_shut_down(*control);
      return exited ? absl::OkStatus() : AwaitHandover(postmaster, place, options, clock);
    }
    if (exited) {
      return base::Error(absl::StatusCode::kFailedPrecondition,
                         "process {} ended without a shutdown checkpoint (pg_control: {})",
                         postmaster.pid(), state);
    }
    if (options.cancelled && options.cancelled()) {
      return absl::CancelledError("waiting was cancelled; the shutdown stays requested");
    }
    if (clock.Monotonic() >= deadline) return Late(postmaster, options.timeout, state);
  }
}

}  // namespace metal::pg
