// Keeps clients away from a PostgreSQL whose primary fenced itself because of its disk: sessions
// that hang in the disk hold their connections, and nobody may begin a new one. By the privileged
// helper (agent/host/traffic_cut.h), of PostgreSQL's own port alone: the door (agent/gate) stays
// open, for it leads on to the next primary. A mark beside the agent's socket says that there is a
// cut, so that an agent without one never asks for the host's rules. Threading: thread-safe; each
// call to the helper ends at its deadline.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/disk/privileged.h"

namespace metal::node {

// What holds the node back, as far as clients are concerned.
enum class FenceCause { kNone, kDisk, kOther };

class ClientCut {
 public:
  // `helper` may be null: nothing is done then, and Cut says so. `mark`: a file on tmpfs; it and
  // the rules of the host end together.
  ClientCut(disk::PrivilegedHelper* helper, int port, std::string mark, base::Clock& clock)
      : helper_(helper), port_(port), mark_(std::move(mark)), clock_(clock) {}

  // Refuses new connections and destroys those that are there, but those of the processes `spared`
  // (senders of WAL). At most 2 s. What was done, and what was not and why, one line for people.
  std::string Cut(const std::vector<pid_t>& spared);
  // Destroys what is left, senders of WAL too; what was done, empty when nothing was. At most 1 s.
  std::string DestroyRest();
  // Makes the host's rules what the fence says: refuses while there is one because of a disk, goes
  // on while there is another one over it (a failover gives it a reason of its own), and allows
  // without one. To be called every second or so; asks the helper at a change alone, and again when
  // it did not do it.
  void Keep(FenceCause cause);

 private:
  absl::Status Refuse() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Allow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  disk::PrivilegedHelper* const helper_;
  const int port_;
  const std::string mark_;
  base::Clock& clock_;
  base::Mutex mutex_;
  std::optional<bool> refused_ ABSL_GUARDED_BY(mutex_);  // nullopt: an earlier agent's, not known
  std::optional<base::MonotonicTime> failed_ ABSL_GUARDED_BY(mutex_);  // when it was not done last
};

}  // namespace metal::node
