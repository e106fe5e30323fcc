// Keeps metal.durability true to synchronous_standby_names in force on a primary
// (agent/docs/adr/2026-11-26-durability-in-force.md). A change that the agent makes is recorded
// step by step by SetSynchronousStandbys; this here follows whatever else set it, and drops a rule
// of before once nodes enough know the later one. Threading: RecordTurn from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/mutex.h"
#include "agent/base/units.h"
#include "agent/pg/durability.h"
#include "agent/pg/metal_schema.h"
#include "agent/pg/session.h"

namespace metal::pg {

// Who may write the record at the moment. An action holds it while policy and record change; the
// heartbeat's thread leaves its work out then.
struct RecordTurn {
  base::Mutex mutex;
  std::atomic<uint64_t> changes = 0;  // that actions made: what was known of the record is not sure
};

struct RecordState {
  std::string in_force;          // synchronous_standby_names
  DurabilityRecord before, now;  // the record
  bool weaker = false;           // what was found in force asks for less than what was recorded
  bool settled = false;          // the record says just what is in force
};

// Looks once, and writes what is to be written. `since`: where WAL was when a record of several
// rules was first seen, kept by the caller between looks; 0: not seen yet. REQUIRES: a primary, the
// schema, and the turn.
absl::StatusOr<RecordState> KeepRecord(SqlSession& session, const DurabilityOwner& owner,
                                       base::Lsn* since, absl::Duration timeout);

// Followers that have flushed all WAL up to `lsn`, and the primary itself.
absl::StatusOr<std::set<std::string>> NodesWith(SqlSession& session, const std::string& node_id,
                                                base::Lsn lsn, absl::Duration timeout);

}  // namespace metal::pg
