// The PgBouncer process of one door: found, launched, watched and ended. It is nobody's child here:
// it outlives the agent, and is known again by its program and by the configuration file that it
// was given, which no other process is. The seam for tests. Threading: one thread at a time.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/process_handle.h"

namespace metal::gate {

class DoorProcess {
 public:
  virtual ~DoorProcess() = default;
  // Looks for one that runs already, whoever started it, and holds it when there is one.
  virtual bool Adopt() = 0;
  // Starts one; it reads its configuration at once. FAILED_PRECONDITION or NOT_FOUND with the
  // program's own last words when it did not come up.
  virtual absl::Status Launch() = 0;
  virtual bool alive() const = 0;
  virtual pid_t pid() const = 0;  // 0: none was held yet
  // Readable once the held process has ended; -1: none is held.
  virtual int exit_fd() const = 0;
  // Why it did not last: the last error in its log since it was launched; may be empty.
  virtual std::string LastWords() const = 0;
  // Ends the held process: SIGTERM, after two seconds SIGKILL. Its clients lose their connections.
  virtual void Stop() = 0;
};

struct PgbouncerOptions {
  std::string program;   // path of pgbouncer
  std::string ini_path;  // its one argument
  std::string pid_path;
  std::string log_path;
  std::string directory;  // working directory
  // systemd would end it with the agent's unit: called after each launch and adoption; may be
  // empty.
  std::function<void(pid_t)> move_to_scope = {};
};

std::unique_ptr<DoorProcess> MakePgbouncer(PgbouncerOptions options);

}  // namespace metal::gate
