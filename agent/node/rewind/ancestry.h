// Whether one node's WAL is a beginning of another's: what may follow, what must be rewound.
// Timelines are compared by ancestry, never by number alone. Threading: pure functions.
#pragma once

#include "absl/status/status.h"
#include "agent/base/units.h"
#include "agent/node/requests.h"

namespace metal::node {

struct Fork {
  base::TimelineId timeline = 0;  // the last timeline that both have
  base::Lsn lsn;                  // where the target's history leaves it
};

// Where `position` stands in the history of `source`, whose timelines end as source.history says.
// OK: everything that the node has is in the source's history up to `source`. FAILED_PRECONDITION,
// reason DIVERGED with fork_timeline and fork_lsn in the metadata: the node has WAL beyond the
// fork, or a timeline that the source never had.
absl::Status CheckAncestry(const WalPosition& position, const WalPosition& source);

// The last point that both histories share; timeline 0 when they share none.
Fork FindFork(const WalPosition& position, const WalPosition& source);

}  // namespace metal::node
