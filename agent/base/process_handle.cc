#include "agent/base/process_handle.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "agent/base/proc.h"
#include "agent/base/status.h"

namespace metal::base {

absl::StatusOr<std::shared_ptr<const ProcessHandle>> ProcessHandle::Open(pid_t pid) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) {
    // The last two: a thread, before and since Linux 6.15.
    if (errno == ESRCH || errno == EINVAL || errno == ENOENT) {
      return Error(absl::StatusCode::kNotFound, "process {} does not exist", pid);
    }
    return ErrnoStatus(errno, "open process", fmt::format("{}", pid));
  }
  METAL_ASSIGN_OR_RETURN(const ProcStat stat, ReadProcStat(pid));
  std::shared_ptr<ProcessHandle> process(new ProcessHandle);
  process->pid_ = pid;
  process->pidfd_ = std::move(fd);
  process->start_time_ = ProcessStartTime(stat).value_or(absl::InfinitePast());
  return std::shared_ptr<const ProcessHandle>(std::move(process));
}

bool ProcessHandle::WaitExit(absl::Duration timeout) const {
  pollfd entry{pidfd_.get(), POLLIN, 0};
  const int64_t ms = std::clamp<int64_t>(
      absl::ToInt64Milliseconds(absl::Ceil(timeout, absl::Milliseconds(1))), 0, INT_MAX);
  return poll(&entry, 1, static_cast<int>(ms)) > 0;
}

absl::Status ProcessHandle::Signal(int signal_number) const {
  if (syscall(SYS_pidfd_send_signal, pidfd_.get(), signal_number, nullptr, 0) == 0)
    return absl::OkStatus();
  if (errno == ESRCH) return Error(absl::StatusCode::kNotFound, "process {} has ended", pid_);
  return ErrnoStatus(errno, "signal process", fmt::format("{}", pid_));
}

}  // namespace metal::base
