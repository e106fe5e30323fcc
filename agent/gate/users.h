// UserFile: PgBouncer's list of users, written from the roles of the local server, whose SCRAM
// secrets are the same on every node of a shard. While the server cannot be asked the last list
// stays. Threading: one thread of its own; revision() from any.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/gate/settings.h"

namespace metal::gate {

// Asks the local server; blocks for a few seconds at most.
using RoleReader = std::function<absl::StatusOr<std::vector<RoleSecret>>()>;

class UserFile {
 public:
  struct Options {
    std::string path;
    bool without_password = false;  // roles without a password log in too
    absl::Duration interval = absl::Seconds(3);
    RoleReader read;
    std::function<void()> changed;  // after each new list; must not block
  };
  explicit UserFile(Options options);
  ~UserFile();
  // An empty file when there is none: PgBouncer does not start without it.
  absl::Status Start();
  // Grows with each new list.
  uint64_t revision() const { return revision_; }

 private:
  void Run();
  // True when the list is another one.
  absl::StatusOr<bool> Refresh();

  const Options options_;
  std::atomic<uint64_t> revision_{1};
  std::string last_;  // of the thread
  base::Mutex mutex_;
  base::CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  base::Thread thread_;
};

}  // namespace metal::gate
