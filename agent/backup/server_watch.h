// Notices that the server whose backup runs was stopped or restarted: it has forgotten the backup
// then, and hours of copying would be for nothing. Asks the lock file, not the session: a session
// that is slow to answer is no evidence. Threading: one thread. Blocks on the data disk for one
// small file every 5 s.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "agent/base/clock.h"
#include "agent/pg/postmaster_pid.h"

namespace metal::backup {

class ServerWatch {
 public:
  // Remembers the server that runs now. `clock` outlives this.
  ServerWatch(std::string data_directory, base::Clock& clock);

  // ABORTED when another server runs, or none. A lock file that cannot be read says nothing. Cheap:
  // call it often.
  absl::Status Check();

 private:
  const std::string data_directory_;
  base::Clock& clock_;
  std::optional<pg::PostmasterPid> server_;
  base::MonotonicTime looked_;
};

}  // namespace metal::backup
