// The primary's part in a clone: the replication slot of the copy keeps the WAL that it will need.
// Threading: blocks on SQL.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/units.h"
#include "agent/pg/session.h"

namespace metal::node {

struct WalReservation {
  base::Lsn restart_lsn;  // WAL from here on is kept
  base::Lsn current_lsn;  // of the primary, after the slot was made
  bool created = false;   // the slot was not there before, or was made again
};

// Makes sure that the physical slot keeps WAL from the primary's last checkpoint on. A slot that
// keeps as much is left as it is; one that keeps less, or has lost its WAL, is made again: never
// less is kept than before. FAILED_PRECONDITION: the server is a standby; the slot is a logical
// one; it is in use and stays so for `patience`.
absl::StatusOr<WalReservation> ReserveWal(pg::SqlSession& session, base::Clock& clock,
                                          const std::string& slot, absl::Duration patience,
                                          const std::function<bool()>& cancelled);

// Waits until this node's server streams. DEADLINE_EXCEEDED.
absl::Status AwaitStreaming(const pg::SessionFactory& connect, base::Clock& clock,
                            absl::Duration patience, const std::function<bool()>& cancelled);

}  // namespace metal::node
