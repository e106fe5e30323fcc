// The steps of a change of role: freeze a standby, make a primary a standby, say where the node
// stands. Each step is safe to repeat: it looks first at what is already done. The caller holds the
// action lock and has stored the term. Threading: on the operation's thread; blocks on SQL and the
// data disk.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/node/requests.h"
#include "agent/observe/progress.h"
#include "agent/pg/session.h"
#include "agent/pg/supervisor.h"

namespace metal::node {

// What the steps work with; all outlive the call.
struct RoleStepContext {
  base::Clock& clock;
  pg::PostgresSupervisor& supervisor;
  const pg::SessionFactory& connect;
  const std::string& data_dir;
  observe::Progress& progress;
};

// Clears primary_conninfo and restore_command with ALTER SYSTEM, which no other file overrides, and
// reloads; waits until the server has no WAL receiver. True: restore_command is still in force
// because this version (13) changes it only at a restart.
absl::StatusOr<bool> StopReceiving(RoleStepContext& context, pg::SqlSession& session);

// The same while the server is down, in postgresql.auto.conf. Nothing when there is no data
// directory.
absl::Status ClearSourcesOffline(const std::string& data_dir);

// Waits until everything that was received is replayed. Two witnesses count, standing still does
// not: the replayed position has reached the received one, or the startup process waits for WAL
// that is not there, seen twice in a row 100 ms apart (a received position is a byte, a replayed
// one the end of a record: they may differ for ever). REQUIRES: no WAL receiver.
// FAILED_PRECONDITION when replay is paused; DEADLINE_EXCEEDED says how far it came.
absl::Status WaitUntilReplayed(RoleStepContext& context, pg::SqlSession& session,
                               absl::Duration timeout);

struct StandbyRestart {
  bool drain = true;                                // up to 2 s for transactions, and a checkpoint
  absl::Duration stop_timeout = absl::Seconds(30);  // fast
  absl::Duration escalation_timeout = absl::Seconds(10);
  pg::StopMode escalate_to = pg::StopMode::kImmediate;
  // Stop even when its sources of WAL cannot be cleared (a full disk): a fence must not depend on
  // the disk's health.
  bool despite_sources = false;
};
// Stops the server and starts it as a standby that follows nobody. `session` may be null (a server
// that does not answer).
absl::Status RestartAsStandby(RoleStepContext& context, std::unique_ptr<pg::SqlSession> session,
                              const StandbyRestart& options);

// A running standby's position with its timeline history.
absl::StatusOr<WalPosition> ReadPosition(RoleStepContext& context, pg::SqlSession& session);
// Of a server that is down, from pg_control; all zero when there is no data directory.
absl::StatusOr<WalPosition> ReadPositionOffline(const std::string& data_dir);

// Connects; a server that refuses connections for a moment is tried again for up to `patience`.
absl::StatusOr<std::unique_ptr<pg::SqlSession>> ConnectPatiently(RoleStepContext& context,
                                                                 absl::Duration patience);

}  // namespace metal::node
