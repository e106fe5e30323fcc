#include "agent/uring/wake_signal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "agent/base/status.h"

namespace metal::uring {

absl::StatusOr<base::UniqueFd> WakeSignal::MakeFd() {
  base::UniqueFd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid()) return base::ErrnoStatus(errno, "create", "eventfd");
  return fd;
}

void WakeSignal::Set() {
  if (set_.exchange(true, std::memory_order_acq_rel)) return;
  const int saved_errno = errno;
  const uint64_t one = 1;
  // A one-word counter that is drained before it is set again cannot overflow: the write cannot
  // fail.
  [[maybe_unused]] const ssize_t written = write(fd_.get(), &one, sizeof one);
  errno = saved_errno;
}

// The counter is emptied before the flag is cleared. The other way round, a Set in between would
// leave the flag set on an empty counter, and no later Set would wake anybody.
bool WakeSignal::Drain() {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = read(fd_.get(), &count, sizeof count);
  return set_.exchange(false, std::memory_order_acq_rel);
}

bool WakeSignal::WaitFor(absl::Duration timeout) {
  const Deadline deadline(timeout);
  for (;;) {
    const timespec left = absl::ToTimespec(deadline.Remaining());
    pollfd poll_fd{fd_.get(), POLLIN, 0};
    if (ppoll(&poll_fd, 1, &left, nullptr) > 0) {
      if (Drain()) return true;
    } else if (deadline.Passed()) {
      return false;
    }
  }
}

absl::Duration Deadline::Remaining() const {
  const auto elapsed = absl::FromChrono(std::chrono::steady_clock::now() - start_);
  return std::clamp(timeout_ - elapsed, absl::ZeroDuration(), absl::Hours(1));
}

}  // namespace metal::uring
