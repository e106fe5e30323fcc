// LaunchPostmaster and LogFailure of process.h: starting the daemon and reading why it did not
// stay.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/proc.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"
#include "agent/base/units.h"
#include "agent/pg/port_owner.h"
#include "agent/pg/process.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(20);
constexpr absl::Duration kRetry = absl::Milliseconds(250);
constexpr absl::Duration kOrphanPoll = absl::Milliseconds(50);
constexpr absl::Duration kOrphanGrace = absl::Seconds(1);
constexpr uint64_t kRotateLogAt = 64 * base::kMiB;
constexpr size_t kLogTail = 64 * base::kKiB;

uint64_t FileSize(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

// One older log is kept. A failed rename only means a longer log.
void RotateLog(const std::string& path) {
  if (FileSize(path) > kRotateLogAt) std::rename(path.c_str(), (path + ".1").c_str());
}

// The process that postgres must not take for a running server when a left-over postmaster.pid
// names it: a killed postmaster that init has not reaped yet, or one that is no server of this
// directory. After a reboot the number of before may be anybody's, and is likely to be a thread of
// this agent, which starts at the same point of each boot. Otherwise this agent itself. postgres
// still refuses while the old server's shared memory is in use.
pid_t DeadLockHolder(const PostmasterPlace& place) {
  const absl::StatusOr<std::optional<PostmasterPid>> file = ReadPostmasterPid(place.data_dir);
  if (!file.ok() || !*file) return getpid();
  const absl::StatusOr<base::ProcStat> holder = base::ReadProcStat((*file)->pid);
  if (holder.ok() && holder->state == 'Z') return (*file)->pid;
  const absl::StatusOr<std::optional<FoundPostmaster>> found = FindPostmaster(place);
  return found.ok() && !*found ? (*file)->pid : getpid();
}

base::DaemonOptions DaemonOf(const LaunchOptions& options) {
  base::DaemonOptions daemon;
  daemon.argv = {
      options.program,   "-D", options.place.data_dir, "-p", fmt::format("{}", options.port), "-k",
      options.socket_dir};
  for (const auto& [name, value] : options.settings) {
    daemon.argv.push_back("-c");
    daemon.argv.push_back(fmt::format("{}={}", name, value));
  }
  // The children give back the postmaster's protection from the OOM killer.
  daemon.environment = {{"PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj"},
                        {"PG_OOM_ADJUST_VALUE", "0"},
                        {"PG_GRANDPARENT_PID", fmt::format("{}", DeadLockHolder(options.place))}};
  daemon.directory = options.place.data_dir;
  daemon.log_path = options.log_path;
  return daemon;
}

bool HeldByOrphans(const std::string& failure) {
  return (failure.find("lock file") != std::string::npos &&
          failure.find("already exists") != std::string::npos) ||
         failure.find("pre-existing shared memory block") != std::string::npos;
}

// Children of a dead postmaster. As long as one lives in the directory there are none, also when
// its postmaster.pid is gone: whoever has a server process as its parent is no orphan.
std::vector<pid_t> ListOrphans(const PostmasterPlace& place) {
  std::vector<pid_t> pids = ListServerProcesses(place);
  for (const pid_t pid : pids) {
    const absl::StatusOr<base::ProcStat> stat = base::ReadProcStat(pid);
    if (stat.ok() && std::find(pids.begin(), pids.end(), stat->parent) != pids.end()) return {};
  }
  return pids;
}

// Asks orphans to end: SIGQUIT, as the postmaster does in an immediate shutdown. A postmaster that
// is just being started by somebody else has another title and is left alone.
void EndOrphans(const PostmasterPlace& place) {
  for (const pid_t pid : ListOrphans(place)) {
    const absl::StatusOr<std::shared_ptr<const Postmaster>> process = Postmaster::Open(pid);
    if (!process.ok() || !base::ProcessCommandLine(pid).starts_with("postgres: ")) continue;
    const absl::Status signalled = (*process)->Signal(SIGQUIT);
    base::LogWarning("process {} of a killed postgres still lived: SIGQUIT{}", pid,
                     signalled.ok() ? "" : " failed");
  }
}

absl::Status CheckCancelled(const LaunchOptions& options) {
  if (!options.cancelled || !options.cancelled()) return absl::OkStatus();
  return absl::CancelledError("start postgres: was cancelled");
}

// A killed postmaster's children end by themselves within seconds; until then they hold its shared
// memory. In 13 and 14 the autovacuum launcher waits 10 s and more for a statistics collector that
// is gone, so after the grace they are told to. Waits until none is left or the deadline; then the
// launch itself says what is wrong.
absl::Status AwaitOrphans(const LaunchOptions& options, base::MonotonicTime deadline,
                          base::Clock& clock) {
  const base::MonotonicTime grace_end = clock.Monotonic() + kOrphanGrace;
  bool told = false;
  while (!ListOrphans(options.place).empty()) {
    METAL_RETURN_IF_ERROR(CheckCancelled(options));
    if (clock.Monotonic() >= deadline) break;
    if (!told && clock.Monotonic() >= grace_end) {
      EndOrphans(options.place);
      told = true;
    }
    clock.Sleep(kOrphanPoll);
  }
  return CheckCancelled(options);
}

base::MonotonicTime LockDeadline(const LaunchOptions& options, base::Clock& clock) {
  return options.lock_deadline.value_or(clock.Monotonic() + kLockPatience);
}

absl::Status StartFailure(const LaunchOptions& options, const std::string& failure) {
  std::string text = failure.empty() ? "it ended without a message" : failure;
  if (HeldByOrphans(failure)) {
    std::string pids;
    for (const pid_t pid : ListServerProcesses(options.place)) pids += fmt::format(" {}", pid);
    if (!pids.empty()) text += fmt::format("; processes of an earlier server still live:{}", pids);
  }
  const bool disk_full = failure.find("No space left on device") != std::string::npos;
  if (text.find("HINT") == std::string::npos)
    text += fmt::format(". HINT: see {}", options.log_path);
  return base::WithReason(
      base::Error(
          disk_full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kFailedPrecondition,
          "start postgres on {}: {}", options.place.data_dir, text),
      {disk_full ? "NO_SPACE" : "POSTGRES_START_FAILED", {{"postgres_message", failure}}});
}

// Starts one daemon and waits until it owns the directory. A null pointer: it ended; `failure` says
// why.
absl::StatusOr<std::shared_ptr<const Postmaster>> LaunchOnce(const LaunchOptions& options,
                                                             base::Clock& clock,
                                                             std::string& failure) {
  RotateLog(options.log_path);
  const uint64_t log_offset = FileSize(options.log_path);
  METAL_ASSIGN_OR_RETURN(const pid_t pid, base::StartDaemon(DaemonOf(options)));
  absl::StatusOr<std::shared_ptr<const Postmaster>> process = Postmaster::Open(pid);
  const base::MonotonicTime deadline = clock.Monotonic() + kPidFilePatience;
  while (process.ok() && clock.Monotonic() < deadline) {
    const absl::StatusOr<std::optional<PostmasterPid>> file =
        ReadPostmasterPid(options.place.data_dir);
    if (file.ok() && *file && (*file)->pid == pid) break;
    if ((*process)->WaitExit(kPoll)) {
      process = absl::NotFoundError("ended");
      break;
    }
  }
  if (process.ok()) return process;
  if (!absl::IsNotFound(process.status())) return process.status();
  failure = LogFailure(options.log_path, log_offset);
  return std::shared_ptr<const Postmaster>();
}

struct LogLine {
  std::string level;  // "FATAL", "HINT", …
  std::string text;
};

// Splits a server log line at its severity, whatever log_line_prefix is.
std::optional<LogLine> SplitLogLine(std::string_view line) {
  for (const std::string_view level :
       {"PANIC", "FATAL", "ERROR", "LOG", "DETAIL", "HINT", "WARNING"}) {
    const std::string mark = fmt::format("{}:  ", level);
    const size_t found = line.find(mark);
    if (found != std::string_view::npos) {
      return LogLine{std::string(level), std::string(line.substr(found + mark.size()))};
    }
  }
  return std::nullopt;
}

// LOG lines that say why a FATAL line follows.
bool IsCause(const std::string& text) {
  for (const std::string_view start :
       {"could not", "invalid value for parameter", "unrecognized configuration parameter",
        "syntax error in file"}) {
    if (text.starts_with(start)) return true;
  }
  return text.find("is outside the valid range for parameter") != std::string::npos;
}

}  // namespace

std::string LogFailure(const std::string& log_path, uint64_t offset) {
  const absl::StatusOr<base::UniqueFd> fd = base::OpenFile(log_path, O_RDONLY);
  if (!fd.ok()) return "";
  const uint64_t size = FileSize(log_path);
  if (size > offset + kLogTail) offset = size - kLogTail;
  std::string text(kLogTail, '\0');
  const ssize_t got = pread(fd->get(), text.data(), text.size(), static_cast<off_t>(offset));
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);

  std::string cause, failure, last_line, last_cause;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string line = text.substr(start, end - start);
    start = end + 1;
    if (line.empty()) continue;
    last_line = line;
    const std::optional<LogLine> parsed = SplitLogLine(line);
    if (!parsed) continue;
    if (parsed->level == "FATAL" || parsed->level == "PANIC") {
      cause = last_cause;
      failure = fmt::format("{}: {}", parsed->level, parsed->text);
    } else if (parsed->level == "LOG" || parsed->level == "WARNING") {
      if (IsCause(parsed->text)) last_cause = parsed->text;
    } else if (!failure.empty() && (parsed->level == "DETAIL" || parsed->level == "HINT")) {
      failure += fmt::format(". {}: {}", parsed->level, parsed->text);
    }
  }
  if (failure.empty()) return last_line;
  return cause.empty() ? failure : fmt::format("{}: {}", cause, failure);
}

absl::Status CheckLaunchable(const LaunchOptions& options, base::Clock& clock) {
  METAL_ASSIGN_OR_RETURN(const std::optional<FoundPostmaster> found, FindPostmaster(options.place));
  if (found) {
    return base::Error(absl::StatusCode::kAlreadyExists,
                       "postgres already runs on {} as process {}", options.place.data_dir,
                       found->process->pid());
  }
  const auto port_free = [&] {
    return CheckPortFree(options.port, options.listen_addresses, options.socket_dir);
  };
  if (port_free().ok()) return absl::OkStatus();
  // Asked once more also when there is no orphan: it may have ended since the first look.
  METAL_RETURN_IF_ERROR(AwaitOrphans(options, LockDeadline(options, clock), clock));
  return port_free();
}

absl::StatusOr<std::shared_ptr<const Postmaster>> LaunchPostmaster(const LaunchOptions& options,
                                                                   base::Clock& clock) {
  const base::MonotonicTime deadline = LockDeadline(options, clock);
  METAL_RETURN_IF_ERROR(CheckLaunchable(options, clock));
  while (true) {
    METAL_RETURN_IF_ERROR(AwaitOrphans(options, deadline, clock));
    std::string failure;
    METAL_ASSIGN_OR_RETURN(std::shared_ptr<const Postmaster> process,
                           LaunchOnce(options, clock, failure));
    if (process) return process;
    if (!HeldByOrphans(failure) || clock.Monotonic() >= deadline)
      return StartFailure(options, failure);
    clock.Sleep(kRetry);
  }
}

}  // namespace metal::pg
