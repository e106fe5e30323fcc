// Whose acknowledgement of commits counts while a standby's disk is sick. A disk that loses what it
// is given was acknowledged all the same, and under FIRST every commit waits for one that stands
// still: the node is out of the synchronous set until its fault is over and it has caught up. The
// policy itself is never made less: where the others are not enough for it, nothing changes.
// Nothing is kept between looks: the shard's file says who belongs to the set, the primary's
// setting who is in it. Threading: pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/metalctl/shard/node_view.h"
#include "tools/metalctl/shard/shard_config.h"

namespace metal::shard {

// It is fenced because of its disk and writes no more: nobody has to take it out of the lead.
bool IsOut(const NodeView& view);

// One change of the primary's synchronous_standby_names under the same policy.
struct SetChange {
  enum class Kind { kNone, kLeaveOut, kTakeBack };
  Kind kind = Kind::kNone;
  size_t node = 0;                    // the standby
  std::vector<std::string> standbys;  // who is in the set afterwards, in the order of the file
  // For people; of kNone: what keeps a sick standby where it is, or that it is out; empty when none
  // is sick.
  std::string why;
  friend bool operator==(const SetChange&, const SetChange&) = default;
};

// The nodes that are in the set, when what is in force on the primary is the file's policy over
// standbys of the file; nullopt otherwise: recover puts that in order first.
std::optional<std::vector<size_t>> SetInForce(const ShardConfig& config, const NodeView& primary);

// What the views ask for, one change at a time; `primary` leads. A standby leaves for a confirmed
// fault alone, one that more than one member has is none of a drive's, and those that remain and
// stream are enough for the policy. It comes back when it streams and is at most max_lag behind.
SetChange DecideSet(const ShardConfig& config, const std::vector<NodeView>& views, size_t primary);

// Who is to be in the set of `leader`, as indices: all others, without the one that is condemned
// where enough of the rest run.
std::vector<size_t> WantedSet(const ShardConfig& config, const std::vector<NodeView>& views,
                              size_t leader);

}  // namespace metal::shard
