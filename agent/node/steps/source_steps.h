// The steps that change what a standby follows. Where a source is said: metal.conf; who takes it
// away uses ALTER SYSTEM too, which no other file overrides. Each step is safe to repeat.
// Threading: on the operation's thread; blocks on SQL and the data disk.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/node/steps/role_steps.h"
#include "agent/pg/replication_source.h"
#include "agent/pg/session.h"

namespace metal::node {

// Takes the source out of metal.conf, and clears primary_conninfo and restore_command with ALTER
// SYSTEM, which no other file overrides. The server has not loaded it yet.
absl::Status ClearSources(RoleStepContext& context, pg::SqlSession& session);

// ClearSources, and reloads; waits until the server has no WAL receiver. True: only a restart frees
// the server of restore_command: this version (13) loads it at no other time, or one hangs.
absl::StatusOr<bool> StopReceiving(RoleStepContext& context, pg::SqlSession& session);

// The same while the server is down, in postgresql.auto.conf and metal.conf. Nothing when there is
// no data directory.
absl::Status ClearSourcesOffline(const std::string& data_dir);

// Writes the source into metal.conf and takes away what postgresql.auto.conf says about sources;
// with a session (null: the server is down or does not answer) by ALTER SYSTEM, and waits until the
// server has loaded it. A server that does not answer yet is told by a signal.
absl::Status FollowSource(RoleStepContext& context, pg::SqlSession* session,
                          const pg::ReplicationSource& source);

// From now on the primary counts what this node acknowledges, if its policy names the node: one
// that streams under pg::UncountedName does so under its own name. `stream_patience`: how long to
// wait until it does; 0: not at all. Nothing for any other node.
absl::Status StreamUnderOwnName(RoleStepContext& context, pg::SqlSession& session,
                                const std::string& node_id, absl::Duration stream_patience);

// Ends the WAL receiver and keeps the source for StartReceiver; restore_command stays.
absl::Status StopReceiver(RoleStepContext& context, pg::SqlSession& session);
// Back to the source in metal.conf. FAILED_PRECONDITION NO_SOURCE when there is none.
absl::Status StartReceiver(RoleStepContext& context, pg::SqlSession& session);

}  // namespace metal::node
