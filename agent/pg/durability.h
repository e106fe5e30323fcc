// Which nodes have an acknowledged commit for certain, as a primary records it inside the cluster
// (metal.durability): whoever is to lead next needs it to know which answers prove that nothing is
// missing (agent/docs/adr/2026-11-26-durability-in-force.md). Threading: pure functions.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/observe/status_board.h"
#include "agent/pg/synchronous.h"

namespace metal::pg {

using observe::DurabilityRule;

// All rules that a commit may count on at the moment: one, and during a change those before and
// after it. Empty: nothing is recorded.
using DurabilityRecord = std::vector<DurabilityRule>;

// What `policy` amounts to on the primary `node_id`: the primary and `count` of the names. A name
// "*" may be anybody: then only the primary is certain. Members are sorted, each once.
DurabilityRule RuleOf(const std::string& node_id, const SynchronousPolicy& policy);

// True when whoever counts on `weaker` may go on doing so while commits are acknowledged by
// `stronger` alone: every set of nodes that satisfies it satisfies `weaker`. A single copy is less
// than anything: it proves nothing unless all nodes answer.
bool Covers(const DurabilityRule& stronger, const DurabilityRule& weaker);
bool Covers(const DurabilityRule& stronger, const DurabilityRecord& record);

// `policy`, or, where its rule on `node_id` does not cover `record`, the one that asks for the
// fewest acknowledgements of all names that both know and does. REQUIRES: CheckPolicy(policy).
SynchronousPolicy CoveringPolicy(const std::string& node_id, const SynchronousPolicy& policy,
                                 const DurabilityRecord& record);

// The record with `rule` in it.
DurabilityRecord With(DurabilityRecord record, const DurabilityRule& rule);
// True when `nodes` are enough for every rule. A single copy asks for none: who relies on it needs
// everybody's answer anyway.
bool Satisfied(const DurabilityRecord& record, const std::set<std::string>& nodes);

// A line for each rule, as the table and an operation's result keep it: `ANY 2 ("a", "b", "c")`,
// two copies of three. Back: INVALID_ARGUMENT when it is none.
std::string EncodeDurability(const DurabilityRecord& record);
absl::StatusOr<DurabilityRecord> DecodeDurability(std::string_view text);

}  // namespace metal::pg
