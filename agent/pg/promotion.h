// Promotes a standby and waits until it takes writes.
// Threading: as the session. The caller holds the action lock and has stored the term.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/units.h"
#include "agent/pg/session.h"

namespace metal::pg {

struct PromoteOptions {
  absl::Duration timeout = absl::Seconds(60);
  std::function<bool()> cancelled = {};
  // CHECKPOINT after the promotion: only then pg_control shows the new timeline and pg_rewind may
  // use this server.
  bool checkpoint = true;
  absl::Duration checkpoint_timeout = absl::Minutes(10);
};

struct PromoteResult {
  bool was_primary = false;  // nothing to do
  base::TimelineId timeline = 0;
  base::Lsn lsn;  // current WAL position after the promotion
};

// DEADLINE_EXCEEDED: still in recovery (a restore_command that runs delays it); the promotion stays
// requested and may complete later. A paused replay is resumed by the server itself.
absl::StatusOr<PromoteResult> PromoteServer(SqlSession& session, base::Clock& clock,
                                            const PromoteOptions& options);

// CHECKPOINT with its own timeout.
absl::Status Checkpoint(SqlSession& session, absl::Duration timeout,
                        std::function<bool()> cancelled = {});

}  // namespace metal::pg
