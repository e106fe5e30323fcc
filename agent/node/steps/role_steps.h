// The steps of a change of role: replay all, make a primary a standby, say where the node stands
// (source_steps.h: what it follows). Each step is safe to repeat: it looks first at what is already
// done. The caller holds the action lock and has stored the term. Threading: on the operation's
// thread; blocks on SQL and the data disk.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

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
  // Asked right before the server is launched; null: it may be.
  std::function<absl::Status()> may_launch = {};
};

// The value in force; empty when it is not set.
absl::StatusOr<std::string> ShowSetting(pg::SqlSession& session, const std::string& name);

// Waits until `done` says true, with 5 ms and then up to 100 ms between looks. DEADLINE_EXCEEDED
// with `what` after `timeout`; CANCELLED when the operation is.
absl::Status PollUntil(RoleStepContext& context, absl::Duration timeout, std::string_view what,
                       const std::function<absl::StatusOr<bool>()>& done);

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

// The newest timeline whose WAL files hold the byte before `lsn`; 0 when they cannot be read.
base::TimelineId TimelineInWal(const std::string& data_dir, base::Lsn lsn);

// A running standby's position with its timeline history.
absl::StatusOr<WalPosition> ReadPosition(RoleStepContext& context, pg::SqlSession& session);
// Of a server that is down, from pg_control; all zero when there is no data directory, or one that
// is half made or half rewound.
absl::StatusOr<WalPosition> ReadPositionOffline(const std::string& data_dir);

// Connects; a server that refuses connections for a moment is tried again for up to `patience`.
absl::StatusOr<std::unique_ptr<pg::SqlSession>> ConnectPatiently(RoleStepContext& context,
                                                                 absl::Duration patience);

}  // namespace metal::node
