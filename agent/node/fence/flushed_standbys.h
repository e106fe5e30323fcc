// What the standbys of a primary are known to have on their disks: what a failover will not lose.
// Threading: pure functions.
#pragma once

#include <string>

#include "agent/base/units.h"
#include "agent/observe/status_board.h"

namespace metal::node {

struct FlushedStandbys {
  base::Lsn lsn;     // the highest of the synchronous ones, else of all; 0: no standby was seen
  std::string by;    // the name of the standby that has it
  std::string text;  // "standbys had flushed 0/3000060 (b, sync), 0/3000000 (c, async)", for people
};

// As the primary saw it last: a moment before its disk failed. Standbys may have more since.
FlushedStandbys FlushedOnStandbys(const observe::FollowersSection& followers);

}  // namespace metal::node
