// Physical replication slots. Source: PostgreSQL, "pg_replication_slots". Threading: as the
// session.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"
#include "agent/pg/session.h"

namespace metal::pg {

// INVALID_ARGUMENT unless it is 1 to 63 of [a-z0-9_].
absl::Status CheckSlotName(const std::string& name);

struct SlotState {
  std::string name;
  bool active = false;
  bool lost = false;      // wal_status "lost": WAL that it kept has gone
  base::Lsn restart_lsn;  // 0: keeps nothing yet
};
absl::StatusOr<std::vector<SlotState>> QuerySlots(SqlSession& session, absl::Duration timeout);

// Keeps WAL from now on.
absl::Status CreateSlot(SqlSession& session, const std::string& name, absl::Duration timeout);
absl::Status DropSlot(SqlSession& session, const std::string& name, absl::Duration timeout);

}  // namespace metal::pg
