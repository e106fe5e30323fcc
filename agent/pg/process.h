// The postmaster process: found, launched, signalled and awaited through its pidfd, so a reused pid
// is never signalled. The postmaster is nobody's child here: it outlives the agent. postmaster.pid
// is only ever read. Threading: Postmaster is immutable after creation and may be used from several
// threads; the functions block.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/proc.h"
#include "agent/base/process_handle.h"
#include "agent/pg/postmaster_pid.h"

namespace metal::pg {

enum class StopMode { kSmart, kFast, kImmediate, kKill };
// "smart", "fast", "immediate", "kill".
std::string_view StopModeName(StopMode mode);

using Postmaster = base::ProcessHandle;

struct PostmasterPlace {
  std::string data_dir;
  std::string bin_dir;
};

struct FoundPostmaster {
  std::shared_ptr<const Postmaster> process;
  PostmasterPid file;
};
// The live postmaster of the data directory, or nullopt. It is one when postmaster.pid's process
// lives and its program is postgres (bin_dir's, or by name, also when replaced since) and its
// working directory is the data directory; where these may not be read, when it started within 3 s
// of the file's start time. FAILED_PRECONDITION when `postgres --single` runs.
absl::StatusOr<std::optional<FoundPostmaster>> FindPostmaster(const PostmasterPlace& place);

// Live postgres processes that work in the data directory: the postmaster, its children, or orphans
// of a killed one.
std::vector<pid_t> ListServerProcesses(const PostmasterPlace& place);

// The postmaster and its children, as /proc has them: no look at the data directory, which may
// hang.
std::vector<base::ProcStat> ListFamily(pid_t postmaster);
// Those of `processes` that have not ended; their states are as of now.
std::vector<base::ProcStat> StillThere(const std::vector<base::ProcStat>& processes);
// SIGKILL to those that are still there.
void KillProcesses(const std::vector<base::ProcStat>& processes);

// SIGKILL to each of them, through its pidfd after a second look. OK when there is none.
absl::Status KillServerProcesses(const PostmasterPlace& place);

// Orphans of a killed postmaster hold its shared memory for 1–5 s; in 13 and 14 for longer.
inline constexpr absl::Duration kLockPatience = absl::Seconds(15);
// A postmaster on a hung disk may take longer to write its pid file; it is alive, so the caller's
// progress watch goes on.
inline constexpr absl::Duration kPidFilePatience = absl::Seconds(10);
// CheckLaunchable and LaunchPostmaster with one lock_deadline take no longer than this together.
inline absl::Duration LongestLaunch() { return kLockPatience + kPidFilePatience; }

struct LaunchOptions {
  PostmasterPlace place;
  std::string program;   // path of `postgres`
  std::string log_path;  // its standard output and error are appended here
  int port = 5432;
  std::string socket_dir;
  std::string listen_addresses;  // only for the check that the port is free
  std::vector<std::pair<std::string, std::string>> settings;  // further -c name=value
  // So long orphans are waited for and launches repeated; nullopt: kLockPatience from each call on.
  std::optional<base::MonotonicTime> lock_deadline;
  std::function<bool()> cancelled = {};  // may be empty
};
// What is known before a launch; the data directory stays as it is. ALREADY_EXISTS when a
// postmaster runs; FAILED_PRECONDITION (PORT_IN_USE) when somebody holds the port. Children of a
// dead postmaster that still hold it are told to end and waited for until lock_deadline; those of a
// living one, whose postmaster.pid is gone, are left alone. CANCELLED: the wait was.
absl::Status CheckLaunchable(const LaunchOptions& options, base::Clock& clock);

// Starts the postmaster and returns once it owns the data directory (postmaster.pid names it).
// ALREADY_EXISTS when one runs already; FAILED_PRECONDITION (PORT_IN_USE, POSTGRES_START_FAILED)
// with the server's own last FATAL line. Asks CheckLaunchable first.
absl::StatusOr<std::shared_ptr<const Postmaster>> LaunchPostmaster(const LaunchOptions& options,
                                                                   base::Clock& clock);

struct StopOptions {
  StopMode mode = StopMode::kFast;
  absl::Duration timeout = absl::Seconds(60);  // for `mode`
  // The strongest mode to go to, one after the other, when the timeout is over; not stronger than
  // `mode`: none. kKill only when the caller asked for it by name.
  StopMode escalate_to = StopMode::kSmart;
  absl::Duration escalation_timeout = absl::Seconds(10);  // for each further mode
  std::function<bool()> cancelled = {};              // stops waiting, not the server; may be empty
  std::function<void(StopMode)> on_escalation = {};  // may be empty
};
struct StopResult {
  StopMode mode = StopMode::kFast;  // the mode that ended it
  absl::Duration took;
};
// DEADLINE_EXCEEDED (STOP_TIMEOUT): still running after the last mode's time; the stop stays
// requested. CANCELLED likewise.
absl::StatusOr<StopResult> StopPostmaster(const Postmaster& postmaster,
                                          const PostmasterPlace& place, const StopOptions& options,
                                          base::Clock& clock);

// The last FATAL, PANIC or "could not" lines that were appended to the log after `offset`, with
// HINT and DETAIL, one line.
std::string LogFailure(const std::string& log_path, uint64_t offset);

}  // namespace metal::pg
