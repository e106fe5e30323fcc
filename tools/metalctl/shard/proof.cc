#include "tools/metalctl/shard/proof.h"

#include "agent/base/check.h"

namespace metal::shard {

Proof ProveAcknowledged(const SyncPolicy& policy, const std::vector<bool>& answered) {
  const size_t standbys = answered.size() - 1;
  const auto acknowledging = static_cast<size_t>(policy.count);
  METAL_CHECK(acknowledging >= 1 && acknowledging <= standbys);
  Proof proof;
  proof.needed = standbys - acknowledging + 1;
  for (size_t i = 0; i < answered.size(); ++i) {
    if (!answered[i]) proof.missing.push_back(i);
  }
  proof.holds = answered.size() - proof.missing.size() >= proof.needed;
  return proof;
}

}  // namespace metal::shard
