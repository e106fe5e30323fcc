// WakeSignal: an eventfd that is set from any thread and waited for by one. Repeated sets cost one
// system call. Deadline: what is left of a timeout on the monotonic clock.
#pragma once

#include <atomic>
#include <chrono>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/fd.h"

namespace metal::uring {

// Threading: Set from any thread or signal handler; the rest from the one waiting thread.
class WakeSignal {
 public:
  // ErrnoStatus when no eventfd can be made.
  static absl::StatusOr<base::UniqueFd> MakeFd();
  explicit WakeSignal(base::UniqueFd fd) : fd_(std::move(fd)) {}

  void Set();
  // Waits until the signal is set or the timeout passed; true when it was set, which clears it.
  bool WaitFor(absl::Duration timeout);
  // Clears the signal; true when it was set. What was written before Set is visible afterwards.
  bool Drain();
  // Readable while the signal is set.
  int fd() const { return fd_.get(); }

 private:
  base::UniqueFd fd_;
  std::atomic<bool> set_{false};  // true: the eventfd is (about to be) readable
  static_assert(std::atomic<bool>::is_always_lock_free);
};

class Deadline {
 public:
  explicit Deadline(absl::Duration timeout)
      : timeout_(timeout), start_(std::chrono::steady_clock::now()) {}
  // At least zero, at most one hour: kernel timers overflow on "for ever".
  absl::Duration Remaining() const;
  bool Passed() const { return Remaining() <= absl::ZeroDuration(); }

 private:
  absl::Duration timeout_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace metal::uring
