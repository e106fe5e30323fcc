// What main builds the agent from: the process's identity, and each module's options as the
// configuration gives them. Threading: main's thread, while it constructs.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/clone_source.h"
#include "agent/backup/copy_pace.h"
#include "agent/backup/wal_archive.h"
#include "agent/backup/wal_server.h"
#include "agent/base/config.h"
#include "agent/disk/disk_monitor.h"
#include "agent/disk/privileged.h"
#include "agent/gate/gate.h"
#include "agent/node/leftover_archiver.h"
#include "agent/node/node.h"
#include "agent/node/terms/lease.h"
#include "agent/node/terms/term_store.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/heartbeat.h"
#include "agent/pg/monitor.h"
#include "agent/pg/session.h"
#include "agent/pg/supervisor.h"
#include "agent/transfer/listener.h"

namespace metal {

// As root: forks the privileged helper, provides directories, becomes the configured user.
// Otherwise the helper only says why it cannot serve. REQUIRES: one thread in the process.
absl::StatusOr<std::unique_ptr<disk::PrivilegedHelper>> TakeIdentity(
    const base::AgentConfig& config);

// Publishes who this node is and which I/O engine works here.
void PublishIdentity(const base::AgentConfig& config, observe::StatusBoard& board);

// Locks the state directory and, if its disk answers soon, the data directory: ABORTED when another
// agent holds one of them. A disk that does not answer keeps no agent from serving; the lock is
// then taken before anything is changed.
absl::StatusOr<pg::DataDirectoryLock> LockDirectories(const base::AgentConfig& config);

// Sessions of the node's own PostgreSQL.
pg::SessionFactory SessionsOf(const base::AgentConfig& config, absl::Duration statement_timeout);

// The lease, its page beside the agent's socket, which is in memory (/run) and waits for no disk.
// Its guard is this program again. `terms` asks it from now on.
std::unique_ptr<node::Lease> AttachLease(const base::AgentConfig& config, node::TermStore& terms,
                                         base::Clock& clock);
// The guard's process: `metal-agent --lease-guard PAGE DATA_DIR BIN_DIR`. Answers the exit code.
int RunLeaseGuard(const char* page, const char* data_dir, const char* bin_dir);

// All others outlive what is made from the options.
pg::SupervisorOptions SupervisorOptionsOf(const base::AgentConfig& config,
                                          const node::TermStore& terms, node::Lease& lease,
                                          const pg::DataDirectoryLock& lock,
                                          const disk::DiskMonitor& disks,
                                          disk::PrivilegedHelper& helper);

// The archive of WAL, what serves it to metal-wal, and what archives on a standby; null without a
// repository. `board`, `events` and `clock` outlive them.
struct WalParts {
  std::shared_ptr<backup::WalArchive> archive;
  std::unique_ptr<backup::WalServer> server;
  std::unique_ptr<node::LeftoverArchiver> leftovers;
};
absl::StatusOr<WalParts> StartWal(const base::AgentConfig& config, observe::StatusBoard& board,
                                  observe::EventLog& events, base::Clock& clock);

// All outlive what is made from the options.
pg::MonitorOptions MonitorOptionsOf(const base::AgentConfig& config, const WalParts& wal,
                                    observe::StatusBoard& board, node::Node& node,
                                    pg::HeartbeatWriter& heartbeat);

// All references outlive it.
std::unique_ptr<pg::HeartbeatWriter> StartHeartbeat(const base::AgentConfig& config,
                                                    const node::TermStore& terms, node::Node& node,
                                                    observe::EventLog& events,
                                                    observe::StatusBoard& board,
                                                    base::Clock& clock);

// The event of the start, and one when the kernel's OOM killer may take PostgreSQL first:
// TakeIdentity could not lower the score, or had no right to.
void ReportStart(const base::AgentConfig& config, const std::string& address,
                 observe::EventLog& events);

// Serves other agents that clone this node.
class TransferServer {
 public:
  // Nothing without config.transfer_listen. FAILED_PRECONDITION when the address cannot be bound.
  // The references outlive the server.
  static absl::StatusOr<std::unique_ptr<TransferServer>> Start(const base::AgentConfig& config,
                                                               observe::EventLog& events,
                                                               node::Node& node,
                                                               backup::CopyPace& pace,
                                                               base::Clock& clock);
  ~TransferServer() { Stop(); }
  // Running clones fail, and their targets hear why.
  void Stop();

 private:
  explicit TransferServer(backup::CloneSourceParts parts) : source_(std::move(parts)) {}
  backup::CloneSource source_;
  std::unique_ptr<transfer::Listener> listener_;
};

backup::CopyPaceOptions PaceOptionsOf(const base::AgentConfig& config);

// `pace` outlives what is made from the options.
disk::DiskMonitorOptions DiskOptionsOf(const base::AgentConfig& config, backup::CopyPace& pace);

// The gate, begun; null when it is off: what an earlier agent left running is then ended. `helper`,
// `board` and `events` outlive it.
absl::StatusOr<std::unique_ptr<gate::Gate>> MakeGate(const base::AgentConfig& config,
                                                     disk::PrivilegedHelper& helper,
                                                     observe::StatusBoard& board,
                                                     observe::EventLog& events);

}  // namespace metal
