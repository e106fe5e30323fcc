#include "agent/pg/durability.h"

#include <algorithm>

#include "agent/base/status.h"

namespace metal::pg {
namespace {

bool Has(const DurabilityRule& rule, const std::string& name) {
  return std::ranges::find(rule.members, name) != rule.members.end();
}

std::vector<std::string> Sorted(std::vector<std::string> names) {
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace

DurabilityRule RuleOf(const std::string& node_id, const SynchronousPolicy& policy) {
  const bool anybody = std::ranges::find(policy.names, "*") != policy.names.end();
  if (policy.count == 0 || anybody) return {1, {node_id}};
  std::vector<std::string> members = policy.names;
  members.push_back(node_id);
  return {policy.count + 1, Sorted(std::move(members))};
}

bool Covers(const DurabilityRule& stronger, const DurabilityRule& weaker) {
  if (weaker.copies <= 1) return true;
  const auto strange = std::ranges::count_if(
      stronger.members, [&](const std::string& name) { return !Has(weaker, name); });
  return stronger.copies - strange >= weaker.copies;
}

bool Covers(const DurabilityRule& stronger, const DurabilityRecord& record) {
  return std::ranges::all_of(record,
                             [&](const DurabilityRule& rule) { return Covers(stronger, rule); });
}

SynchronousPolicy CoveringPolicy(const std::string& node_id, const SynchronousPolicy& policy,
                                 const DurabilityRecord& record) {
  if (Covers(RuleOf(node_id, policy), record)) return policy;
  std::vector<std::string> names = policy.names;
  for (const DurabilityRule& rule : record) {
    if (rule.copies > 1) names.insert(names.end(), rule.members.begin(), rule.members.end());
  }
  std::erase_if(names, [&](const std::string& name) { return name == node_id || name == "*"; });
  SynchronousPolicy covering{.any = true, .count = std::max(policy.count, 1), .names = {}};
  covering.names = Sorted(std::move(names));
  // With all of them every rule's members are there.
  while (covering.count < static_cast<int>(covering.names.size()) &&
         !Covers(RuleOf(node_id, covering), record)) {
    ++covering.count;
  }
  return covering;
}

DurabilityRecord With(DurabilityRecord record, const DurabilityRule& rule) {
  if (std::ranges::find(record, rule) == record.end()) record.push_back(rule);
  return record;
}

bool Satisfied(const DurabilityRecord& record, const std::set<std::string>& nodes) {
  return std::ranges::all_of(record, [&](const DurabilityRule& rule) {
    return rule.copies <= 1 || std::ranges::count_if(rule.members, [&](const std::string& name) {
                                 return nodes.contains(name);
                               }) >= rule.copies;
  });
}

std::string EncodeDurability(const DurabilityRecord& record) {
  std::string text;
  for (const DurabilityRule& rule : record) {
    text += RenderPolicy({.any = true, .count = rule.copies, .names = rule.members}) + "\n";
  }
  return text;
}

absl::StatusOr<DurabilityRecord> DecodeDurability(std::string_view text) {
  DurabilityRecord record;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    METAL_ASSIGN_OR_RETURN(SynchronousPolicy policy, ParsePolicy(line));
    METAL_RETURN_IF_ERROR(CheckPolicy(policy));
    if (!policy.any || policy.count == 0) {
      return base::Error(absl::StatusCode::kInvalidArgument, "\"{}\" says no number of copies",
                         line);
    }
    record.push_back({policy.count, Sorted(std::move(policy.names))});
  }
  return record;
}

}  // namespace metal::pg
