// What is wrong with a shard: every inconsistency that the statuses of its nodes show, each under a
// name that stays. Pure: the same statuses give the same findings. The table of names is what
// `metalctl shard check --list` prints.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tools/metalctl/shard/node_view.h"

namespace metal::shard {

enum class Weight {
  kWarning,  // the shard serves, as safe as it should; look at it in working hours
  kError,    // it does not serve, or less safely than the policy says
};

struct FindingKind {
  std::string_view name;  // stable: scripts and alerts use it
  Weight weight;
  std::string_view meaning;
  std::string_view hint;  // the next step
};
std::span<const FindingKind> FindingKinds();

struct Finding {
  const FindingKind* kind = nullptr;
  std::string node;     // the node that it is about; empty: the shard
  std::string message;  // what was seen
};

// Errors first, then in the order of FindingKinds(). `views`: one for each node of the config, in
// its order.
std::vector<Finding> Analyse(const ShardConfig& config, const std::vector<NodeView>& views);

// Takes a node whose data directory is another database's than that of most nodes for one that does
// not answer: it is no copy, and no reason to leave the others without a primary.
void LeaveOutStrangers(std::vector<NodeView>& views);

// Whether the primary sends WAL to this node, as far as it has looked.
bool SeenStreaming(const NodeView& primary, std::string_view id);
bool HasErrors(const std::vector<Finding>& findings);

// The index of the one node that is read-write by order of the highest term seen; nullopt when
// there is none. A read-write server that no term ordered, or only an older term, does not count.
std::optional<size_t> FindPrimary(const std::vector<NodeView>& views);
// The standby that the highest term ordered to lead: its promotion has not ended, or it came back
// as a standby. Only where the term is ours (ShardConfig::IsOurs), and its disk is not dying;
// nullopt when there is none.
std::optional<size_t> FindPromoting(const ShardConfig& config, const std::vector<NodeView>& views);
uint64_t HighestTerm(const std::vector<NodeView>& views);

}  // namespace metal::shard
