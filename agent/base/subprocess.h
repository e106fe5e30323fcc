// Runs a program and collects its output; starts a detached daemon. The only place that forks.
// The child gets a clean environment: PATH, LC_ALL=C, TZ=UTC, HOME and what `environment` adds; no
// NOTIFY_SOCKET, no PG*. All descriptors but 0, 1, 2 are closed. waitpid is called for the child's
// own pid only. Threading: any thread. Blocks; give a timeout.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::base {

struct SubprocessOptions {
  std::vector<std::string> argv;  // argv[0] is an absolute path or is searched in PATH
  std::map<std::string, std::string> environment;
  std::string directory;                            // working directory; empty: /
  std::string standard_input;                       // bytes given to the child
  absl::Duration timeout = absl::Seconds(60);       // then SIGKILL to the child's process group
  absl::Duration kill_patience = absl::Seconds(5);  // a killed child that hangs is left behind then
  size_t output_limit = 1 << 20;                    // bytes kept of each stream (the tail)
  std::function<bool()> cancelled;  // polled every 100 ms; true: SIGTERM, 5 s later SIGKILL
  std::function<void(std::string_view)> on_stderr_line;  // called on the calling thread
};

struct SubprocessResult {
  int exit_code = -1;  // 128 + signal when a signal ended it
  std::string standard_output;
  std::string standard_error;
  bool ok() const { return exit_code == 0; }
  // Last non-empty line of standard error (or of output), for messages.
  std::string LastLine() const;
};

// NOT_FOUND when the program is missing; DEADLINE_EXCEEDED on timeout; CANCELLED when cancelled; a
// non-zero exit is OK.
absl::StatusOr<SubprocessResult> RunSubprocess(const SubprocessOptions& options);

struct DaemonOptions {
  std::vector<std::string> argv;
  std::map<std::string, std::string> environment;
  std::string directory;
  std::string log_path;  // standard output and error are appended here
};
// Double fork with setsid: the daemon is nobody's child here (init reaps it), survives this process
// and its session. Returns the daemon's pid once exec succeeded; an exec error is reported as
// ErrnoStatus.
absl::StatusOr<pid_t> StartDaemon(const DaemonOptions& options);

}  // namespace metal::base
