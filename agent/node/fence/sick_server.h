// The server of a primary that fences itself because of its disk, from the first signal until it
// has ended or what hangs of it has been named. Nothing is asked of the server and nothing is read
// from a disk: the end waits for neither a journal nor a data directory that hangs.
// Threading: thread-safe; each call ends within 3 s.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/proc.h"
#include "agent/disk/privileged.h"
#include "agent/node/fence/client_cut.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "agent/pg/process.h"

namespace metal::node {

struct SickServerParts {
  disk::PrivilegedHelper* helper;  // null: processes are killed one by one
  int port;                        // PostgreSQL's own
  ClientCut& cut;
  observe::EventLog& events;
  base::Clock& clock;
  // Says among the fault's actions what was done.
  std::function<void(const observe::Fault&, const std::string&)> note;
};

class SickServer {
 public:
  explicit SickServer(SickServerParts parts) : parts_(std::move(parts)) {}

  // An immediate stop (SIGQUIT) at once. The same server again: nothing, also when it has been
  // named as one that hangs.
  void Begin(const observe::Fault& fault, std::shared_ptr<const pg::Postmaster> postmaster);
  // To be called again after NextLook: kills what has not ended 2 s after Begin, by the control
  // group where there is one; then destroys the connections that are left and tells how long it
  // took (event disk.server_down, with duration_ms) or what still hangs (disk.survivors).
  void Look();
  absl::Duration NextLook();
  bool ending();

 private:
  struct Server {
    observe::Fault fault;
    std::shared_ptr<const pg::Postmaster> postmaster;
    std::vector<base::ProcStat> family;  // as of Begin: orphans are found again
    base::MonotonicTime begin, due;      // due: of the next step
    bool killed = false;
  };
  // One process for ever.
  struct Identity {
    pid_t pid = 0;
    uint64_t start_ticks = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };
  // nullopt: it has ended.
  static std::optional<Identity> IdentityOf(pid_t pid);
  void Kill(const Server& server);
  // What was done, one line; destroys the connections that are left.
  std::string Tell(const Server& server);

  const SickServerParts parts_;
  base::Mutex mutex_;
  std::optional<Server> server_ ABSL_GUARDED_BY(mutex_);
  std::optional<Identity> told_ ABSL_GUARDED_BY(mutex_);  // the last that was done with
};

}  // namespace metal::node
