// The proof that every acknowledged commit is on some node that answered. Threading: pure
// functions.
//
// An acknowledged commit is on k+1 of the nodes: on its primary, and on k of the n standbys. Which
// k is not known, for ANY as for FIRST (those of higher priority may have been away). So one of the
// answers has it for certain exactly if at most k nodes are missing, that is if n−k+1 answered. It
// does not help that the old primary is among them: while more than k nodes are missing, these may
// have begun a newer term among themselves, and have acknowledged what no answer shows.
//
// k is not what the shard's file says, or not only: what was in force may have asked for less. The
// cluster's WAL says it (agent/docs/adr/2026-11-26-durability-in-force.md).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/metalctl/shard/shard_config.h"
#include "tools/metalctl/shard/wal_position.h"

namespace metal::shard {

struct Proof {
  bool holds = false;
  size_t needed = 0;            // answers; more than there are nodes: nothing proves it
  std::vector<size_t> missing;  // nodes without an answer
  std::string decided_by;       // what asks for that many: "the policy ANY 1", …
};

// `answered`: for each node of the shard, that it is frozen in the new term and that all its WAL is
// known. A node that lost its data, or whose WAL is not read to its end, has not answered. `rules`:
// RulesInForce of the answers. REQUIRES: 1 ≤ policy.count < nodes.
Proof ProveAcknowledged(const ShardConfig& config, const std::vector<bool>& answered,
                        const std::vector<DurabilityRule>& rules);

// What held where the answers end: the rules of every answer but those that another one continues,
// or that are of an earlier term. nullopt: no answer. One that records nothing counts as a rule of
// a single copy, for which all must answer.
std::vector<DurabilityRule> RulesInForce(const std::vector<std::optional<WalPosition>>& answers);

}  // namespace metal::shard
