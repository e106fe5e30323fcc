// Serves metal-wal on a unix socket: PostgreSQL's archive_command and restore_command end here.
// Threads: one that accepts, and a fixed number of workers, each of which may hang with the
// repository's disk: then the accepting thread answers "try again" and nothing else in the agent
// notices.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/wal_archive.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/thread.h"

namespace metal::backup {

struct WalServerOptions {
  std::string socket_path = {};
  int workers = 8;  // connections served at once
  absl::Duration io_timeout =
      absl::Seconds(10);  // for a client to send its request and to take its response
  std::vector<uid_t> allowed_users = {};  // besides root and this process's effective user
  // The cluster of this node's data directory; 0 or unset: not known. A push of another cluster is
  // refused.
  std::function<uint64_t()> current_system_identifier = {};
};

struct WalServerStatistics {
  int busy = 0;  // workers at work now
  int workers = 0;
  uint64_t turned_away = 0;     // connections answered with "try again" because no worker was free
  uint64_t prefetched = 0;      // fetches that were answered with a file decoded ahead
  uint64_t refused_users = 0;   // connections of other users
  std::string last_push_error;  // why the last push was not stored; empty when it was
  absl::Duration longest_busy;  // age of the oldest request at work; zero when none
};

class WalServer {
 public:
  // Binds the socket (mode 0600; its directory is created with 0700 when missing) and starts the
  // threads. A socket file that nobody serves is replaced. ALREADY_EXISTS: another process serves
  // it. FAILED_PRECONDITION: its directory can be written by everybody. Workers share `archive`:
  // one that hangs keeps it alive.
  static absl::StatusOr<std::unique_ptr<WalServer>> Start(WalServerOptions options,
                                                          std::shared_ptr<WalArchive> archive,
                                                          base::Clock& clock);
  // Stop with 5 s.
  ~WalServer();
  WalServer(const WalServer&) = delete;
  WalServer& operator=(const WalServer&) = delete;

  // Accepts no more, lets running requests end for up to `grace`, then leaves the threads that hang
  // behind; those touch neither the event log nor anything but the archive any more. `clock` must
  // then live as long as the process. False when a thread was left behind.
  bool Stop(absl::Duration grace);

  // Memory only: safe on the status path.
  WalServerStatistics Statistics();

 private:
  struct Shared;
  WalServer(std::shared_ptr<Shared> shared, base::UniqueFd listener, base::UniqueFd wake);
  void StartThreads();
  void AcceptLoop();
  void Dispatch(base::UniqueFd socket);

  std::shared_ptr<Shared> shared_;
  base::UniqueFd listener_;
  base::UniqueFd wake_;  // eventfd that ends AcceptLoop
  base::Thread acceptor_;
  std::vector<base::Thread> workers_;
};

}  // namespace metal::backup
