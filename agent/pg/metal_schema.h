// The schema `metal` in database `postgres`: what the agent of a primary writes into the cluster,
// so that every copy carries it. Tables, owned by the superuser, readable by everybody:
//   metal.term_history  one row for each term that had a primary: who, on which timeline, from
//   where metal.heartbeat     one row, updated about once a second: when, and by whom
//   metal.durability    one row: on how many of which nodes an acknowledged commit is
//   (durability.h)
// A schema of that name that is not ours (it lacks our comment) is never touched. Nothing here
// waits for a standby: synchronous_commit is local or off, since whoever follows a new primary may
// have to be told of it first; a later commit that a standby acknowledged carries these rows with
// it. Threading: as the session.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/observe/status_board.h"
#include "agent/pg/durability.h"
#include "agent/pg/session.h"
#include "agent/pg/term_history.h"

namespace metal::pg {

enum class MetalSchema { kAbsent, kOurs, kOlder, kIncomplete, kForeign };
// kOlder: ours, as it was before metal.durability. kIncomplete: ours, without one of its tables.
absl::StatusOr<MetalSchema> LookForMetalSchema(SqlSession& session, absl::Duration timeout);

// Creates what is missing, in one transaction. FAILED_PRECONDITION (METAL_SCHEMA_FOREIGN) when the
// schema is somebody else's. Durable when OK.
absl::Status EnsureMetalSchema(SqlSession& session, absl::Duration timeout);

struct TermOrder {
  uint64_t term = 0;
  std::string node_id, orchestrator_id;
};
// Writes the row of this term with the present timeline and position, unless there is one. Durable
// here when OK. REQUIRES: a primary, and the schema.
absl::Status WriteTermHistory(SqlSession& session, const TermOrder& order, absl::Duration timeout);

// The last `limit` rows, oldest first. Empty where there is no schema of ours; also on a standby.
absl::StatusOr<TermHistory> QueryTermHistory(SqlSession& session, size_t limit,
                                             absl::Duration timeout);
inline constexpr size_t kTermHistoryRows = 16;

// Who writes metal.durability.
struct DurabilityOwner {
  std::string node_id, cluster_id;
  uint64_t term = 0;
};
// Replaces the record. Durable here when OK. REQUIRES: a primary, and the schema.
absl::Status WriteDurability(SqlSession& session, const DurabilityOwner& owner,
                             const DurabilityRecord& record, absl::Duration timeout);
// Empty where there is none, where it is another cluster's, of which this one is a restored copy,
// or where somebody wrote what means nothing. Also on a standby.
absl::StatusOr<DurabilityRecord> QueryDurability(SqlSession& session, std::string_view cluster_id,
                                                 absl::Duration timeout);
// The same. REQUIRES: the table is there.
absl::StatusOr<DurabilityRecord> ReadDurability(SqlSession& session, std::string_view cluster_id,
                                                absl::Duration timeout);

// One HOT update and its commit record, some 200 bytes of WAL; not flushed by itself. REQUIRES: a
// primary, the schema, and PrepareHeartbeats before.
absl::Status WriteHeartbeat(SqlSession& session, const TermOrder& order, absl::Duration timeout);
// Settings of a session that writes heartbeats and nothing else.
absl::Status PrepareHeartbeats(SqlSession& session, absl::Duration timeout);
// nullopt: nobody has written one. REQUIRES: the schema is ours.
absl::StatusOr<std::optional<observe::Heartbeat>> QueryHeartbeat(SqlSession& session,
                                                                 absl::Duration timeout);

}  // namespace metal::pg
