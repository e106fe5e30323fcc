// The fork: everything the child needs is prepared before it, and the child itself only makes
// system calls. Internal to base: use subprocess.h. Threading: any thread.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"

namespace metal::base {

struct Pipe {
  UniqueFd read, write;
  // Both ends are closed by exec and lie above 9, out of the way of the child's own descriptors.
  static absl::StatusOr<Pipe> Create();
};

// What a child writes to its report pipe: a step that failed, or (kStarted) the daemon's pid.
struct ChildReport {
  enum Step : int { kStarted, kDirectory, kFork, kExec, kSetUp };
  Step step;
  int error;  // errno; 0 for kStarted
  pid_t pid;
};
// OK for kStarted.
absl::Status ChildReportStatus(const ChildReport& report, const std::string& program,
                               const std::string& directory);

struct ChildPlan {
  // NOT_FOUND when `argv[0]` has no slash and is not in PATH.
  static absl::StatusOr<ChildPlan> Make(const std::vector<std::string>& argv,
                                        const std::map<std::string, std::string>& environment,
                                        const std::string& directory);

  std::string program;
  std::vector<std::string> arguments, environment;  // environment: NAME=value
  std::string directory;
  int standard_input = -1, standard_output = -1, standard_error = -1, report = -1;
  bool daemon = false;  // true: double fork and setsid; false: a process group of its own, dies
                        // with the calling thread
};

// Forks; answers the pid of the direct child (for a daemon: of the process between, which ends by
// itself).
absl::StatusOr<pid_t> ForkChild(const ChildPlan& plan);

}  // namespace metal::base
