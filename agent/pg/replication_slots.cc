#include "agent/pg/replication_slots.h"

#include <algorithm>

#include "agent/base/status.h"

namespace metal::pg {

absl::Status CheckSlotName(const std::string& name) {
  const bool plain = std::ranges::all_of(
      name, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
  if (plain && !name.empty() && name.size() <= 63) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "\"{}\" is no name of a slot. HINT: 1 to 63 of a-z, 0-9 and _", name);
}

absl::StatusOr<std::vector<SlotState>> QuerySlots(SqlSession& session, absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(
      const SqlResult result,
      session.Query("SELECT slot_name, active, coalesce(wal_status, '') AS wal_status, restart_lsn "
                    "FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary "
                    "ORDER BY slot_name",
                    timeout));
  std::vector<SlotState> slots;
  for (size_t row = 0; row < result.rows.size(); ++row) {
    slots.push_back({result.Text(row, "slot_name"), result.Bool(row, "active"),
                     result.Text(row, "wal_status") == "lost", result.LsnAt(row, "restart_lsn")});
  }
  return slots;
}

absl::Status CreateSlot(SqlSession& session, const std::string& name, absl::Duration timeout) {
  return session
      .Query("SELECT pg_create_physical_replication_slot($1, true)", {name}, {timeout, nullptr})
      .status();
}

absl::Status DropSlot(SqlSession& session, const std::string& name, absl::Duration timeout) {
  return session.Query("SELECT pg_drop_replication_slot($1)", {name}, {timeout, nullptr}).status();
}

}  // namespace metal::pg
