#include "tools/metalctl/shard/proof.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::shard {
namespace {

// Every set of nodes as bits; node 0 … nodes−1 are those of the file, "a", "b", …
bool In(unsigned set, size_t node) { return (set >> node & 1) != 0; }

std::vector<bool> Answered(unsigned set, size_t nodes) {
  std::vector<bool> answered;
  for (size_t i = 0; i < nodes; ++i) answered.push_back(In(set, i));
  return answered;
}

std::string Name(size_t node) { return std::string(1, static_cast<char>('a' + node)); }

ShardConfig Nodes(size_t nodes, const SyncPolicy& policy) {
  ShardConfig config;
  config.policy = policy;
  for (size_t i = 0; i < nodes; ++i) {
    ShardNode node;
    node.id = Name(i);
    config.nodes.push_back(node);
  }
  return config;
}

DurabilityRule Rule(int copies, unsigned members) {
  DurabilityRule rule{copies, {}};
  for (size_t i = 0; i < 8; ++i) {
    if (In(members, i)) rule.members.push_back(Name(i));
  }
  return rule;
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

// The same by a rule: what it was acknowledged by may be any of the nodes of the file by now, and
// those that the file has lost.
bool MayBeLost(int copies, unsigned members, unsigned answered, size_t nodes) {
  const unsigned all = members | ((1u << nodes) - 1);
  for (unsigned set = 0; set < 1u << 8; ++set) {
    if ((set & ~all) == 0 && __builtin_popcount(set) >= copies && (set & answered) == 0)
      return true;
  }
  return false;
}

TEST(ProofTest, HoldsExactlyWhenNoAcknowledgedCommitCanBeMissing) {
  for (const auto method : {SyncPolicy::Method::kAny, SyncPolicy::Method::kFirst}) {
    for (size_t nodes = 2; nodes <= 6; ++nodes) {
      for (int count = 1; count < static_cast<int>(nodes); ++count) {
        const SyncPolicy policy{method, count};
        for (unsigned answered = 0; answered < 1u << nodes; ++answered) {
          const Proof proof =
              ProveAcknowledged(Nodes(nodes, policy), Answered(answered, nodes), {});
          ASSERT_EQ(proof.holds, !MayBeLost(policy, answered, nodes))
              << policy.ToString() << " of " << nodes - 1 << ", answered " << answered;
          ASSERT_EQ(proof.missing.size(),
                    nodes - static_cast<size_t>(__builtin_popcount(answered)));
        }
      }
    }
  }
}

// Members up to two nodes beyond the file.
TEST(ProofTest, WhatWasInForceCountsWhereItAsksForLess) {
  for (size_t nodes = 2; nodes <= 4; ++nodes) {
    for (int count = 1; count < static_cast<int>(nodes); ++count) {
      const SyncPolicy policy{SyncPolicy::Method::kAny, count};
      const ShardConfig config = Nodes(nodes, policy);
      for (unsigned members = 1; members < 1u << (nodes + 2); ++members) {
        for (int copies = 1; copies <= __builtin_popcount(members); ++copies) {
          for (unsigned answered = 0; answered < 1u << nodes; ++answered) {
            const Proof proof =
                ProveAcknowledged(config, Answered(answered, nodes), {Rule(copies, members)});
            ASSERT_EQ(proof.holds, !MayBeLost(policy, answered, nodes) &&
                                       !MayBeLost(copies, members, answered, nodes))
                << policy.ToString() << " of " << nodes - 1 << ", in force " << copies << " of "
                << members << ", answered " << answered;
          }
        }
      }
    }
  }
}

TEST(ProofTest, OfThreeNodesTwoMustAnswer) {
  const ShardConfig config = Nodes(3, {SyncPolicy::Method::kAny, 1});
  EXPECT_TRUE(ProveAcknowledged(config, {false, true, true}, {}).holds);
  EXPECT_TRUE(ProveAcknowledged(config, {true, true, false}, {}).holds);
  const Proof alone = ProveAcknowledged(config, {true, false, false}, {});
  EXPECT_FALSE(alone.holds) << "the others may have begun a term of their own";
  EXPECT_EQ(alone.needed, 2u);
  EXPECT_EQ(alone.decided_by, "the policy ANY 1");
  EXPECT_THAT(alone.missing, ::testing::ElementsAre(1, 2));
}

TEST(ProofTest, WithNothingInForceAllMustAnswer) {
  const ShardConfig config = Nodes(3, {SyncPolicy::Method::kAny, 2});
  const Proof two = ProveAcknowledged(config, {true, true, false}, {Rule(1, 0b001)});
  EXPECT_FALSE(two.holds);
  EXPECT_EQ(two.needed, 3u);
  EXPECT_EQ(two.decided_by, "what was in force, 1 of a");
  EXPECT_TRUE(ProveAcknowledged(config, {true, true, true}, {Rule(1, 0b001)}).holds);
}

TEST(ProofTest, NothingProvesWhatOnlyNodesOutsideOfTheFileMayHave) {
  const ShardConfig config = Nodes(2, {SyncPolicy::Method::kAny, 1});
  EXPECT_EQ(ProveAcknowledged(config, {true, true}, {Rule(1, 0b100)}).needed, 3u);
}

WalPosition At(uint64_t term, base::TimelineId timeline, uint64_t lsn, DurabilityRule rule) {
  WalPosition position{timeline, {lsn}, {}, {{term, timeline, {0x1000}, "a"}}};
  if (timeline > 1) position.history = {{1, {0x2000}}};
  if (rule.copies > 0) position.durability = {std::move(rule)};
  return position;
}

TEST(ProofTest, TheRulesOfWhoHasTheMostWalCount) {
  using ::testing::ElementsAre;
  const DurabilityRule none = Rule(1, 0b001), one = Rule(2, 0b111), two = Rule(3, 0b111);
  EXPECT_THAT(RulesInForce({std::nullopt, At(1, 1, 0x1500, none), At(1, 1, 0x1600, one)}),
              ElementsAre(one))
      << "from before the policy";
  EXPECT_THAT(RulesInForce({At(1, 1, 0x1600, two), At(1, 1, 0x1600, two)}), ElementsAre(two));
  EXPECT_THAT(RulesInForce({At(1, 1, 0x2800, none), At(2, 2, 0x2500, two)}), ElementsAre(two))
      << "of a term that is over";
  EXPECT_THAT(RulesInForce({At(2, 1, 0x2800, none), At(2, 2, 0x2500, two)}), ElementsAre(none, two))
      << "which of them it is nobody knows";
  EXPECT_THAT(RulesInForce({At(1, 1, 0x1500, one), At(1, 1, 0x1600, {})}),
              ElementsAre(DurabilityRule{1, {}}))
      << "nothing is recorded there: all must answer";
  EXPECT_THAT(RulesInForce({At(1, 1, 0x1500, {}), At(1, 1, 0x1600, one)}), ElementsAre(one))
      << "from before the table";
}

}  // namespace
}  // namespace metal::shard
