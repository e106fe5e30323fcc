#include "tools/metalctl/shard/proof.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::shard {
namespace {

// Every set of nodes as bits; node 0 … nodes−1.
bool In(unsigned set, size_t node) { return (set >> node & 1) != 0; }

std::vector<bool> Answered(unsigned set, size_t nodes) {
  std::vector<bool> answered;
  for (size_t i = 0; i < nodes; ++i) answered.push_back(In(set, i));
  return answered;
}

// The standbys that acknowledge while `connected` are there: for FIRST those of the highest
// priority, for ANY each set of k of them.
std::vector<unsigned> AcknowledgingSets(const SyncPolicy& policy, size_t primary,
                                        unsigned connected, size_t nodes) {
  std::vector<unsigned> sets;
  if (policy.method == SyncPolicy::Method::kFirst) {
    unsigned first = 0;
    int count = 0;
    for (size_t i = 0; i < nodes && count < policy.count; ++i) {
      if (i == primary || !In(connected, i)) continue;
      first |= 1u << i;
      ++count;
    }
    if (count == policy.count) sets.push_back(first);
    return sets;
  }
  for (unsigned set = 0; set < 1u << nodes; ++set) {
    if ((set & ~connected) == 0 && !In(set, primary) && __builtin_popcount(set) == policy.count) {
      sets.push_back(set);
    }
  }
  return sets;
}

// True when some acknowledged commit may be on missing nodes alone.
bool MayBeLost(const SyncPolicy& policy, unsigned answered, size_t nodes) {
  for (size_t primary = 0; primary < nodes; ++primary) {
    for (unsigned connected = 0; connected < 1u << nodes; ++connected) {
      for (const unsigned set : AcknowledgingSets(policy, primary, connected, nodes)) {
        const unsigned copies = set | 1u << primary;
        if ((copies & answered) == 0) return true;
      }
    }
  }
  return false;
}

TEST(ProofTest, HoldsExactlyWhenNoAcknowledgedCommitCanBeMissing) {
  for (const auto method : {SyncPolicy::Method::kAny, SyncPolicy::Method::kFirst}) {
    for (size_t nodes = 2; nodes <= 6; ++nodes) {
      for (int count = 1; count < static_cast<int>(nodes); ++count) {
        const SyncPolicy policy{method, count};
        for (unsigned answered = 0; answered < 1u << nodes; ++answered) {
          const Proof proof = ProveAcknowledged(policy, Answered(answered, nodes));
          ASSERT_EQ(proof.holds, !MayBeLost(policy, answered, nodes))
              << policy.ToString() << " of " << nodes - 1 << ", answered " << answered;
          ASSERT_EQ(proof.missing.size(),
                    nodes - static_cast<size_t>(__builtin_popcount(answered)));
        }
      }
    }
  }
}

TEST(ProofTest, OfThreeNodesTwoMustAnswer) {
  const SyncPolicy policy{SyncPolicy::Method::kAny, 1};
  EXPECT_TRUE(ProveAcknowledged(policy, {false, true, true}).holds);
  EXPECT_TRUE(ProveAcknowledged(policy, {true, true, false}).holds);
  const Proof alone = ProveAcknowledged(policy, {true, false, false});
  EXPECT_FALSE(alone.holds) << "the others may have begun a term of their own";
  EXPECT_EQ(alone.needed, 2u);
  EXPECT_THAT(alone.missing, ::testing::ElementsAre(1, 2));
}

}  // namespace
}  // namespace metal::shard
