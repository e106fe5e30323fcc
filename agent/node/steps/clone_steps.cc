#include "agent/node/steps/clone_steps.h"

#include "agent/base/status.h"
#include "agent/pg/replication.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(100);
constexpr absl::Duration kStreamPoll = absl::Milliseconds(20);

struct Slot {
  bool exists = false, active = false, physical = false, lost = false;
  base::Lsn restart_lsn;
};

absl::StatusOr<Slot> FindSlot(pg::SqlSession& session, const std::string& name) {
  METAL_ASSIGN_OR_RETURN(
      const pg::SqlResult rows,
      session.Query("SELECT slot_type, active, restart_lsn, wal_status FROM pg_replication_slots "
                    "WHERE slot_name = $1",
                    {name}, {.timeout = kQuery}));
  Slot slot;
  if (rows.rows.empty()) return slot;
  slot.exists = true;
  slot.active = rows.Bool(0, "active");
  slot.physical = rows.Text(0, "slot_type") == "physical";
  slot.restart_lsn = rows.LsnAt(0, "restart_lsn");
  slot.lost = rows.Text(0, "wal_status") == "lost";
  return slot;
}

}  // namespace

absl::StatusOr<WalReservation> ReserveWal(pg::SqlSession& session, base::Clock& clock,
                                          const std::string& name, absl::Duration patience,
                                          const std::function<bool()>& cancelled) {
  METAL_ASSIGN_OR_RETURN(const pg::SqlResult server,
                         session.Query("SELECT pg_is_in_recovery() AS standby, "
                                       "(pg_control_checkpoint()).redo_lsn AS redo",
                                       kQuery));
  if (server.Bool(0, "standby")) {
    return absl::FailedPreconditionError(
        "the server to follow is a standby. HINT: give the primary of the shard");
  }
  const base::MonotonicTime deadline = clock.Monotonic() + patience;
  WalReservation reservation;
  while (true) {
    METAL_ASSIGN_OR_RETURN(const Slot slot, FindSlot(session, name));
    if (slot.exists && !slot.physical) {
      return base::Error(absl::StatusCode::kFailedPrecondition,
                         "slot {} of the primary is a logical one. HINT: drop it, or rename this "
                         "node",
                         name);
    }
    const bool keeps = slot.exists && !slot.lost && slot.restart_lsn.valid() &&
                       slot.restart_lsn <= server.LsnAt(0, "redo");
    if (!slot.active && keeps) break;
    if (!slot.active) {
      if (slot.exists) {
        METAL_RETURN_IF_ERROR(
            session.Query("SELECT pg_drop_replication_slot($1)", {name}, {.timeout = kQuery})
                .status());
      }
      METAL_RETURN_IF_ERROR(session
                                .Query("SELECT pg_create_physical_replication_slot($1, true)",
                                       {name}, {.timeout = kQuery})
                                .status());
      reservation.created = true;
      break;
    }
    if (cancelled && cancelled()) return absl::CancelledError("operation was cancelled");
    if (clock.Monotonic() >= deadline) {
      return base::Error(absl::StatusCode::kFailedPrecondition,
                         "slot {} of the primary is in use. HINT: does another node with the same "
                         "node_id stream from it?",
                         name);
    }
    clock.Sleep(kPoll);
  }
  METAL_ASSIGN_OR_RETURN(const Slot made, FindSlot(session, name));
  METAL_ASSIGN_OR_RETURN(const pg::SqlResult now,
                         session.Query("SELECT pg_current_wal_lsn() AS lsn", kQuery));
  reservation.restart_lsn = made.restart_lsn;
  reservation.current_lsn = now.LsnAt(0, "lsn");
  return reservation;
}

absl::Status AwaitStreaming(const pg::SessionFactory& connect, base::Clock& clock,
                            absl::Duration patience, const std::function<bool()>& cancelled) {
  const base::MonotonicTime deadline = clock.Monotonic() + patience;
  std::string last = "it accepts no connections yet";
  std::unique_ptr<pg::SqlSession> session;
  while (true) {
    if (cancelled()) return absl::CancelledError("operation was cancelled");
    if (session == nullptr || !session->connected()) {
      auto connected = connect();
      if (connected.ok()) session = *std::move(connected);
    }
    if (session != nullptr && session->connected()) {
      const auto receiver = pg::QueryReceiver(*session, kQuery);
      if (receiver.ok() && *receiver && (*receiver)->status == "streaming") {
        return absl::OkStatus();
      }
      last = !receiver.ok() ? std::string(receiver.status().message())
             : *receiver    ? "its WAL receiver is " + (*receiver)->status
                            : "no WAL receiver runs";
    }
    if (clock.Monotonic() >= deadline) {
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "the standby does not stream after {}: {}. HINT: see its log; can it "
                         "reach the primary?",
                         absl::FormatDuration(patience), last);
    }
    clock.Sleep(kStreamPoll);
  }
}

}  // namespace metal::node
