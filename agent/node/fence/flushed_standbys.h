// What the standbys of a primary are known to have on their disks: what a failover will not lose.
// Threading: a memory belongs to one thread; functions are pure.
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

FlushedStandbys FlushedOnStandbys(const observe::FollowersSection& followers);

// A server whose disk fails may be gone before its disk is known to have failed, and then has no
// followers any more: keeps what it had, while it leads.
class FollowersMemory {
 public:
  // Of the status, from time to time.
  void Look(const observe::NodeStatus& status);
  // As the primary saw it last; older than 5 s: with its age. Standbys may have more since.
  FlushedStandbys Flushed(absl::Time now) const;

 private:
  observe::FollowersSection seen_;
};

}  // namespace metal::node
