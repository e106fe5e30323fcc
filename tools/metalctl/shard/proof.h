// The proof that every acknowledged commit is on some node that answered. Threading: pure
// functions.
//
// An acknowledged commit is on k+1 of the nodes: on its primary, and on k of the n standbys. Which
// k is not known, for ANY as for FIRST (those of higher priority may have been away). So one of the
// answers has it for certain exactly if at most k nodes are missing, that is if n−k+1 answered. It
// does not help that the old primary is among them: while more than k nodes are missing, these may
// have begun a newer term among themselves, and have acknowledged what no answer shows.
#pragma once

#include <string>
#include <vector>

#include "tools/metalctl/shard/shard_config.h"

namespace metal::shard {

struct Proof {
  bool holds = false;
  size_t needed = 0;            // answers
  std::vector<size_t> missing;  // nodes without one
};

// `answered`: for each node of the shard, that it is frozen in the new term and that all its WAL is
// known. A node that lost its data, or whose WAL is not read to its end, has not answered.
// REQUIRES: 1 ≤ policy.count < answered.size().
Proof ProveAcknowledged(const SyncPolicy& policy, const std::vector<bool>& answered);

}  // namespace metal::shard
