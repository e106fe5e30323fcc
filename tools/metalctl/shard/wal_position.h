// Where nodes stand in the history of WAL, and which of them has the most of it. Timelines are
// compared by ancestry, never by number alone; two that were begun apart at the same place are told
// apart by the terms of their primaries. Threading: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::shard {

struct TimelineSwitch {
  base::TimelineId timeline = 0;  // that ended
  base::Lsn lsn;                  // where
  bool operator==(const TimelineSwitch&) const = default;
};

// A term that had a primary, as that noted it in the cluster right after its promotion.
struct TermStart {
  uint64_t term = 0;
  base::TimelineId timeline = 0;
  base::Lsn lsn;
  std::string node;
  bool operator==(const TermStart&) const = default;
};

// What the cluster records of its commits: an acknowledged one is on `copies` of `members` at
// least.
struct DurabilityRule {
  int copies = 0;
  std::vector<std::string> members;  // ids of nodes
  bool operator==(const DurabilityRule&) const = default;
};

// All the WAL that a frozen node has: everything that it received is replayed.
struct WalPosition {
  base::TimelineId timeline = 0;
  base::Lsn received;
  std::vector<TimelineSwitch> history;  // how it came to its timeline, oldest first
  std::vector<TermStart> terms = {};    // the last ones, oldest first; empty: not known
  // What held when this WAL ended, each rule of it; empty: not recorded.
  std::vector<DurabilityRule> durability = {};
};

enum class Ancestry {
  kSame,      // both have exactly the same WAL
  kBehind,    // the first is a beginning of the second
  kAhead,     // the second is a beginning of the first
  kDiverged,  // each has WAL that the other does not have
};
Ancestry Compare(const WalPosition& first, const WalPosition& second);

struct Standing {
  size_t node = 0;
  bool may_lead = true;  // a node that may not is looked at all the same: its WAL counts
  bool disk_sick = false;
  WalPosition position;
};

struct Choice {
  size_t leader = 0;  // to be promoted
  // Has WAL that the leader lacks and is no leader itself: the leader takes it over first. nullopt
  // when the leader has everything.
  std::optional<size_t> ahead;
  std::vector<size_t> diverged;  // have WAL beside the winning history: to be rewound or cloned
};

// Who leads: of those on the history of the latest term (where a node's terms are not known: of the
// newest timeline), the one with the most WAL; among equals one with a healthy disk, then the
// first. `wanted` leads when it is on that history at all. FAILED_PRECONDITION: nobody may lead; or
// two histories left the same timeline, of which neither is known to be the one that clients saw:
// the message names the nodes.
absl::StatusOr<Choice> ChooseLeader(const std::vector<Standing>& standings,
                                    const std::vector<std::string>& names,
                                    std::optional<size_t> wanted);

// What the operator says: `leader`, whatever the others have. REQUIRES: it is among the standings.
Choice LeadRegardless(const std::vector<Standing>& standings, size_t leader);

}  // namespace metal::shard
