// ProcessHandle: a process that is nobody's child here, held by its pidfd, so that a reused pid is
// never signalled or waited for. Threading: immutable after creation; may be used from several
// threads.
#pragma once

#include <sys/types.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/fd.h"

namespace metal::base {

class ProcessHandle {
 public:
  // Opens a pidfd. NOT_FOUND when there is no such process.
  static absl::StatusOr<std::shared_ptr<const ProcessHandle>> Open(pid_t pid);

  pid_t pid() const { return pid_; }
  absl::Time start_time() const { return start_time_; }  // of the process, resolution 1 s
  int pidfd() const { return pidfd_.get(); }             // readable once the process has ended
  bool alive() const { return !WaitExit(absl::ZeroDuration()); }
  // True when the process has ended within the timeout.
  bool WaitExit(absl::Duration timeout) const;
  // NOT_FOUND when it has ended.
  absl::Status Signal(int signal_number) const;

 private:
  ProcessHandle() = default;
  pid_t pid_ = 0;
  absl::Time start_time_;
  UniqueFd pidfd_;
};

}  // namespace metal::base
