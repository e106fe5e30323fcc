#include "tools/metalctl/shard/proof.h"

#include <algorithm>

#include "agent/base/check.h"
#include "fmt/ranges.h"

namespace metal::shard {
namespace {

// A node that is in the rule and not in the file may have been one of those that acknowledged.
size_t CopiesHere(const ShardConfig& config, const DurabilityRule& rule) {
  const auto strangers = std::ranges::count_if(
      rule.members, [&](const std::string& id) { return !config.Find(id).has_value(); });
  return static_cast<size_t>(std::max<std::ptrdiff_t>(rule.copies - strangers, 0));
}

std::string Describe(const DurabilityRule& rule) {
  if (rule.members.empty()) return "no record of what was in force";
  return fmt::format("what was in force, {} of {}", rule.copies, fmt::join(rule.members, ", "));
}

// The first says nothing that the second does not know better.
bool IsSuperseded(const WalPosition& first, const WalPosition& second) {
  if (!first.terms.empty() && !second.terms.empty() &&
      first.terms.back().term != second.terms.back().term) {
    return first.terms.back().term < second.terms.back().term;
  }
  return Compare(first, second) == Ancestry::kBehind;
}

}  // namespace

Proof ProveAcknowledged(const ShardConfig& config, const std::vector<bool>& answered,
                        const std::vector<DurabilityRule>& rules) {
  const size_t nodes = answered.size();
  METAL_CHECK(config.policy.count >= 1 && static_cast<size_t>(config.policy.count) < nodes);
  size_t copies = static_cast<size_t>(config.policy.count) + 1;
  Proof proof;
  proof.decided_by = fmt::format("the policy {}", config.policy.ToString());
  for (const DurabilityRule& rule : rules) {
    const size_t here = CopiesHere(config, rule);
    if (here >= copies) continue;
    copies = here;
    proof.decided_by = Describe(rule);
  }
  proof.needed = nodes - copies + 1;
  for (size_t i = 0; i < nodes; ++i) {
    if (!answered[i]) proof.missing.push_back(i);
  }
  proof.holds = nodes - proof.missing.size() >= proof.needed;
  return proof;
}

std::vector<DurabilityRule> RulesInForce(const std::vector<std::optional<WalPosition>>& answers) {
  std::vector<DurabilityRule> rules;
  const auto add = [&](const DurabilityRule& rule) {
    if (std::ranges::find(rules, rule) == rules.end()) rules.push_back(rule);
  };
  for (const auto& answer : answers) {
    if (!answer) continue;
    const bool superseded = std::ranges::any_of(answers, [&](const auto& other) {
      return other && &other != &answer && IsSuperseded(*answer, *other);
    });
    if (superseded) continue;
    if (answer->durability.empty()) add({.copies = 1, .members = {}});
    for (const DurabilityRule& rule : answer->durability) add(rule);
  }
  return rules;
}

}  // namespace metal::shard
