#include "agent/gate/process.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/proc.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"

namespace metal::gate {
namespace {

constexpr absl::Duration kStopPatience = absl::Seconds(2);
constexpr size_t kLogTail = 64 << 10;

// A replaced program ("… (deleted)") still counts: the package was upgraded under it.
bool RunsProgram(pid_t pid, const std::string& program) {
  const auto exe = base::ProcessExe(pid);
  if (!exe) return false;
  return *exe == program || exe->substr(exe->rfind('/') + 1) == "pgbouncer";
}

bool IsDoor(pid_t pid, const PgbouncerOptions& options) {
  const std::vector<std::string> arguments = base::ProcessArguments(pid);
  return std::ranges::find(arguments, options.ini_path) != arguments.end() &&
         RunsProgram(pid, options.program);
}

off_t SizeOf(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 ? info.st_size : 0;
}

// Each client and each server connection is a descriptor: the soft limit that a service inherits is
// often 1024.
void RaiseFileLimit(pid_t pid) {
  rlimit limit{};
  if (::prlimit(pid, RLIMIT_NOFILE, nullptr, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (::prlimit(pid, RLIMIT_NOFILE, &limit, nullptr) != 0) {
    base::LogWarning("event=gate.file_limit pid={} message=\"{}\"", pid,
                     base::ErrnoStatus(errno, "raise", "RLIMIT_NOFILE").ToString());
  }
}

class Pgbouncer final : public DoorProcess {
 public:
  explicit Pgbouncer(PgbouncerOptions options) : options_(std::move(options)) {}

  bool Adopt() override {
    for (const pid_t pid : base::ListProcesses()) {
      if (!IsDoor(pid, options_)) continue;
      auto process = base::ProcessHandle::Open(pid);
      // The pidfd is open before the second look, so what is held is what was looked at.
      if (!process.ok() || !IsDoor(pid, options_) || !(*process)->alive()) continue;
      Hold(*std::move(process));
      return true;
    }
    return false;
  }

  absl::Status Launch() override {
    // Nobody runs with this configuration (Adopt looked): a file that names a process names a dead
    // one, or a stranger with a reused pid, and PgBouncer would refuse to start beside it.
    if (::unlink(options_.pid_path.c_str()) != 0 && errno != ENOENT)
      return base::ErrnoStatus(errno, "remove", options_.pid_path);
    log_offset_ = SizeOf(options_.log_path);
    base::DaemonOptions daemon;
    daemon.argv = {options_.program, "-q", options_.ini_path};
    daemon.directory = options_.directory;
    daemon.log_path = options_.log_path;
    METAL_ASSIGN_OR_RETURN(const pid_t pid, base::StartDaemon(daemon));
    auto process = base::ProcessHandle::Open(pid);
    if (!process.ok()) {
      return base::Error(absl::StatusCode::kFailedPrecondition, "pgbouncer ended at once: {}",
                         LastWords());
    }
    RaiseFileLimit(pid);
    Hold(*std::move(process));
    return absl::OkStatus();
  }

  bool alive() const override { return process_ != nullptr && process_->alive(); }
  pid_t pid() const override { return process_ == nullptr ? 0 : process_->pid(); }
  int exit_fd() const override { return process_ == nullptr ? -1 : process_->pidfd(); }

  std::string LastWords() const override {
    const auto text = base::ReadFile(options_.log_path, 64 << 20);
    if (!text.ok()) return "";
    std::string_view rest(*text);
    rest.remove_prefix(std::min(rest.size(), static_cast<size_t>(log_offset_)));
    if (rest.size() > kLogTail) rest.remove_prefix(rest.size() - kLogTail);
    std::string words;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      for (const std::string_view level : {" FATAL ", " ERROR "}) {
        const size_t found = line.find(level);
        if (found != std::string_view::npos) words = line.substr(found + level.size());
      }
    }
    return words;
  }

  void Stop() override {
    if (!alive()) return;
    for (const int signal_number : {SIGTERM, SIGKILL}) {
      if (const auto sent = process_->Signal(signal_number); !sent.ok() && !absl::IsNotFound(sent))
        base::LogWarning("event=gate.stop message=\"{}\"", sent.ToString());
      if (process_->WaitExit(kStopPatience)) return;
    }
  }

 private:
  void Hold(std::shared_ptr<const base::ProcessHandle> process) {
    process_ = std::move(process);
    if (options_.move_to_scope) options_.move_to_scope(process_->pid());
  }

  const PgbouncerOptions options_;
  std::shared_ptr<const base::ProcessHandle> process_;
  off_t log_offset_ = 0;
};

}  // namespace

std::unique_ptr<DoorProcess> MakePgbouncer(PgbouncerOptions options) {
  return std::make_unique<Pgbouncer>(std::move(options));
}

}  // namespace metal::gate
