#include "agent/pg/process.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>

#include "agent/base/file.h"
#include "agent/base/proc.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(100);
constexpr absl::Duration kStartTimeTolerance = absl::Seconds(3);

std::string RealPath(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : path;
}

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool SameFile(const std::string& a, const std::string& b) {
  struct stat left, right;
  return stat(a.c_str(), &left) == 0 && stat(b.c_str(), &right) == 0 &&
         left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

bool IsServerProgram(pid_t pid, const std::string& exe, const std::string& bin_dir) {
  const std::string name = BaseName(exe);
  if (name == "postgres" || name == "postmaster") return true;
  if (SameFile(exe, base::JoinPath(bin_dir, "postgres"))) return true;
  // Started through a dynamic loader by name: the program is among the arguments.
  return name.starts_with("ld-") &&
         base::ProcessCommandLine(pid).find("postgres") != std::string::npos;
}

// Whether `pid` works as a server on `real_data_dir`; nullopt when we may not look.
std::optional<bool> WorksOn(pid_t pid, const std::string& real_data_dir,
                            const std::string& bin_dir) {
  const std::optional<std::string> cwd = base::ProcessCwd(pid);
  const std::optional<std::string> exe = base::ProcessExe(pid);
  if (!cwd || !exe) return std::nullopt;
  return *cwd == real_data_dir && IsServerProgram(pid, *exe, bin_dir);
}

int SignalOf(StopMode mode) {
  switch (mode) {
    case StopMode::kSmart:
      return SIGTERM;
    case StopMode::kFast:
      return SIGINT;
    case StopMode::kImmediate:
      return SIGQUIT;
    case StopMode::kKill:
      return SIGKILL;
  }
  return SIGINT;
}

enum class Waited { kExited, kTimedOut, kCancelled };

Waited AwaitExit(const Postmaster& postmaster, base::MonotonicTime deadline,
                 const std::function<bool()>& cancelled, base::Clock& clock) {
  while (true) {
    if (cancelled && cancelled()) return Waited::kCancelled;
    const absl::Duration left = deadline - clock.Monotonic();
    if (postmaster.WaitExit(std::clamp(left, absl::ZeroDuration(), kPoll))) return Waited::kExited;
    if (left <= absl::ZeroDuration()) return Waited::kTimedOut;
  }
}

}  // namespace

std::string_view StopModeName(StopMode mode) {
  constexpr std::string_view kNames[] = {"smart", "fast", "immediate", "kill"};
  return kNames[static_cast<size_t>(mode)];
}

absl::StatusOr<std::optional<FoundPostmaster>> FindPostmaster(const PostmasterPlace& place) {
  METAL_ASSIGN_OR_RETURN(std::optional<PostmasterPid> file, ReadPostmasterPid(place.data_dir));
  if (!file) return std::optional<FoundPostmaster>();
  absl::StatusOr<std::shared_ptr<const Postmaster>> process = Postmaster::Open(file->pid);
  if (absl::IsNotFound(process.status())) return std::optional<FoundPostmaster>();
  if (!process.ok()) return process.status();
  const std::optional<bool> works = WorksOn(file->pid, RealPath(place.data_dir), place.bin_dir);
  const absl::Duration apart = absl::AbsDuration((*process)->start_time() - file->start_time);
  const bool ours = works.value_or(apart < kStartTimeTolerance);
  if (!ours || !(*process)->alive()) return std::optional<FoundPostmaster>();
  if (file->single_user) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "postgres --single (process {}) works on {}. HINT: let it finish", file->pid,
                       place.data_dir);
  }
  return std::optional<FoundPostmaster>(FoundPostmaster{*std::move(process), *std::move(file)});
}

std::vector<pid_t> ListServerProcesses(const PostmasterPlace& place) {
  const std::string real = RealPath(place.data_dir);
  std::vector<pid_t> pids = base::ListProcesses();
  std::erase_if(pids, [&](pid_t pid) { return WorksOn(pid, real, place.bin_dir) != true; });
  return pids;
}

std::vector<base::ProcStat> ListFamily(pid_t postmaster) {
  std::vector<base::ProcStat> family;
  for (const pid_t pid : base::ListProcesses()) {
    auto stat = base::ReadProcStat(pid);
    if (stat.ok() && (pid == postmaster || stat->parent == postmaster)) {
      family.push_back(*std::move(stat));
    }
  }
  return family;
}

std::vector<base::ProcStat> StillThere(const std::vector<base::ProcStat>& processes) {
  std::vector<base::ProcStat> left;
  for (const base::ProcStat& each : processes) {
    auto now = base::ReadProcStat(each.pid);
    const bool ended =
        !now.ok() || now->start_ticks != each.start_ticks || now->state == 'Z' || now->state == 'X';
    if (!ended) left.push_back(*std::move(now));
  }
  return left;
}

void KillProcesses(const std::vector<base::ProcStat>& processes) {
  for (const base::ProcStat& each : processes) {
    // The pidfd is opened before the second look, so what is signalled is what was looked at.
    const auto process = Postmaster::Open(each.pid);
    if (process.ok() && !StillThere({each}).empty()) (void)(*process)->Signal(SIGKILL);
  }
}

absl::Status KillServerProcesses(const PostmasterPlace& place) {
  for (const pid_t pid : ListServerProcesses(place)) {
    // The pidfd is opened before the second look, so what is signalled is what was looked at.
    absl::StatusOr<std::shared_ptr<const Postmaster>> process = Postmaster::Open(pid);
    if (!process.ok()) continue;
    if (WorksOn(pid, RealPath(place.data_dir), place.bin_dir) != true) continue;
    const absl::Status killed = (*process)->Signal(SIGKILL);
    if (!killed.ok() && !absl::IsNotFound(killed)) return killed;
  }
  return absl::OkStatus();
}

absl::StatusOr<StopResult> StopPostmaster(const Postmaster& postmaster,
                                          const PostmasterPlace& place, const StopOptions& options,
                                          base::Clock& clock) {
  const base::MonotonicTime start = clock.Monotonic();
  StopMode mode = options.mode;
  absl::Duration patience = options.timeout;
  while (true) {
    const absl::Status signalled = postmaster.Signal(SignalOf(mode));
    if (!signalled.ok() && !absl::IsNotFound(signalled)) {
      return base::Annotate(signalled, fmt::format("stop postgres ({})", StopModeName(mode)));
    }
    if (mode == StopMode::kKill) METAL_RETURN_IF_ERROR(KillServerProcesses(place));
    switch (AwaitExit(postmaster, clock.Monotonic() + patience, options.cancelled, clock)) {
      case Waited::kExited:
        return StopResult{mode, clock.Monotonic() - start};
      case Waited::kCancelled:
        return base::Error(
            absl::StatusCode::kCancelled,
            "stop postgres: waiting was cancelled; a {} stop of process {} stays requested",
            StopModeName(mode), postmaster.pid());
      case Waited::kTimedOut:
        break;
    }
    if (mode >= options.escalate_to) {
      return base::WithReason(
          base::Error(absl::StatusCode::kDeadlineExceeded,
                      "stop postgres: process {} still runs {} after the {} stop was requested; it "
                      "stays requested. "
                      "HINT: repeat with a longer timeout or a stronger mode",
                      postmaster.pid(), absl::FormatDuration(patience), StopModeName(mode)),
          {"STOP_TIMEOUT", {{"mode", std::string(StopModeName(mode))}}});
    }
    mode = static_cast<StopMode>(static_cast<int>(mode) + 1);
    patience = options.escalation_timeout;
    if (options.on_escalation) options.on_escalation(mode);
  }
}

}  // namespace metal::pg
