// The orderly end of a primary that is to become a standby: done when pg_control says "shut down",
// not when the last process has gone. A backlog of the archiver, which the postmaster waits for,
// does not hold it back. Threading: blocks; the caller owns the server's life.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/pg/control_file.h"
#include "agent/pg/process.h"

namespace metal::pg {

struct DemotionStop {
  absl::Duration timeout = absl::Seconds(60);  // for pg_control to say "shut down"
  // Afterwards, for the walsenders to hand over the shutdown checkpoint. Once they are gone, or
  // this has passed, whoever is left (the archiver) is ended at once: all WAL is on the disk.
  absl::Duration handover = absl::Seconds(15);
  std::function<void(const ControlFile&)> on_shut_down = {};  // called once; may be empty
  std::function<bool()> cancelled = {};  // asked before "shut down" only; may be empty
};

// Requests a fast shutdown and returns when the postmaster has gone. DEADLINE_EXCEEDED
// (STOP_TIMEOUT) and CANCELLED: the stop stays requested. FAILED_PRECONDITION: it ended without a
// shutdown checkpoint.
absl::Status StopForDemotion(const Postmaster& postmaster, const PostmasterPlace& place,
                             const DemotionStop& options, base::Clock& clock);

}  // namespace metal::pg
