#include "agent/disk/faults/reaction_policy.h"

#include <algorithm>
#include <set>

namespace metal::disk {

Reaction ReactionPolicy::For(const DiskFault& fault) const {
  const FaultRow& row = RowOf(fault.fault_class);
  const auto named = by_class.find(fault.fault_class);
  if (named == by_class.end()) return std::min(row.reaction, strongest);
  if (named->second != Reaction::kDemote || row.reaction == Reaction::kDemote) return named->second;
  std::set<EvidenceSource> sources;
  for (const Evidence& each : fault.evidence) {
    if (row.seen_by.contains(each.witness)) sources.insert(SourceOf(each.witness));
  }
  return sources.size() >= 2 ? Reaction::kDemote : Reaction::kDrain;
}

ReactionPolicy MakeReactionPolicy(const std::string& strongest,
                                  const std::map<std::string, std::string>& by_class) {
  ReactionPolicy policy;
  policy.strongest = ParseReaction(strongest);
  for (const FaultRow& row : FaultTable()) {
    const auto named = by_class.find(std::string(FaultClassName(row.fault_class)));
    if (named != by_class.end()) policy.by_class[row.fault_class] = ParseReaction(named->second);
  }
  return policy;
}

}  // namespace metal::disk
