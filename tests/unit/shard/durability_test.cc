// Policies that change: what is in force is not what the file says, and the proof goes by both.
#include <algorithm>
#include <random>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/shard/fake_shard.h"
#include "tests/unit/shard/procedure_fixture.h"
#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/shard/procedure.h"

namespace metal::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

const SyncPolicy kAny1{SyncPolicy::Method::kAny, 1};
const SyncPolicy kAny2{SyncPolicy::Method::kAny, 2};

class DurabilityTest : public ::testing::Test {
 protected:
  using Change = std::function<absl::Status(Procedure& procedure)>;
  // By an operator whose file says `policy`.
  absl::Status Run(const SyncPolicy& policy, const Change& change) {
    ShardConfig config = shard_.config();
    config.policy = policy;
    Procedure procedure(config, shard_, log_, fmt::format("run{}", ++runs_));
    return change(procedure);
  }
  absl::Status Failover(const SyncPolicy& policy, bool accept_data_loss = false) {
    return Run(policy, [&](Procedure& procedure) {
      return procedure.Failover({std::nullopt, accept_data_loss});
    });
  }
  absl::Status Recover(const SyncPolicy& policy, bool accept_data_loss = false) {
    return Run(policy, [&](Procedure& procedure) {
      if (accept_data_loss) procedure.AcceptDataLoss();
      return procedure.Recover();
    });
  }
  FakeNode& node(size_t i) { return shard_.at(i); }
  void Lose(size_t i) { node(i).reachable = node(i).server_up = false; }
  void Return(size_t i) { node(i).reachable = node(i).server_up = true; }

  FakeShard shard_{ThreeNodes()};
  QuietLog log_;
  int runs_ = 0;
};

TEST_F(DurabilityTest, WithNothingInForceTwoOfThreeAnswersProveNothing) {
  node(0).synchronous = "";
  for (int i = 0; i < 3; ++i) shard_.Tick();
  node(1).slots.clear();
  node(0).slots.clear();  // nobody streams: what is acknowledged now is on a alone
  for (int i = 0; i < 3; ++i) shard_.Tick();
  ASSERT_GT(shard_.Lost(1), 0);
  Lose(0);
  const absl::Status refused = Failover(kAny1);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("with what was in force, 1 of a")));
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("missing: a")));
  EXPECT_EQ(node(1).stored.term, 4u) << "refused before anything changed";
  EXPECT_THAT(Recover(kAny1), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("1 of a")));
  Return(0);
  EXPECT_THAT(Recover(kAny1), IsOk()) << log_.text;
  EXPECT_EQ(shard_.Lost(*FindPrimary(shard_.Views())), 0);
}

TEST_F(DurabilityTest, AFileThatAsksForMoreThanIsInForceProvesNoMore) {
  Lose(2);
  for (int i = 0; i < 3; ++i) shard_.Tick();  // on a and b
  Lose(0);
  Lose(1);
  Return(2);
  // ANY 2 would take c alone for proof.
  EXPECT_THAT(Failover(kAny2), StatusIs(absl::StatusCode::kFailedPrecondition,
                                        HasSubstr("what was in force, 2 of a, b, c")));
  EXPECT_FALSE(FindPrimary(shard_.Views()).has_value());
  Return(1);
  EXPECT_THAT(Failover(kAny2), IsOk()) << log_.text;
  EXPECT_EQ(shard_.Lost(*FindPrimary(shard_.Views())), 0);
}

TEST_F(DurabilityTest, AStrongerPolicyProvesMoreOnceItIsInForce) {
  ASSERT_THAT(Recover(kAny2), IsOk()) << log_.text;
  EXPECT_THAT(node(1).wal.durability, ElementsAre(DurabilityRule{3, {"a", "b", "c"}}));
  Lose(0);
  Lose(1);
  EXPECT_THAT(Failover(kAny2), IsOk()) << log_.text << "every commit is on every node";
  EXPECT_EQ(shard_.Lost(2), 0);
}

TEST_F(DurabilityTest, AskingForLessWaitsForWhoProvesAlone) {
  ASSERT_THAT(Recover(kAny2), IsOk()) << log_.text;
  Lose(2);
  EXPECT_THAT(Recover(kAny1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("do not know it")));
  EXPECT_THAT(node(0).synchronous, HasSubstr("ANY 2"));
  EXPECT_THAT(Recover(kAny1, true), IsOk()) << log_.text;
  EXPECT_THAT(node(0).synchronous, HasSubstr("ANY 1"));
}

TEST_F(DurabilityTest, ALeaderBeginsWithWhatWasInForceNotWithLess) {
  ASSERT_THAT(Recover(kAny2), IsOk()) << log_.text;
  Lose(0);
  const absl::Status led = Failover(kAny1);
  EXPECT_EQ(FindPrimary(shard_.Views()), 1u) << "it leads, and commits wait for a: " << log_.text;
  EXPECT_THAT(led, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("do not know it")));
  EXPECT_THAT(node(1).synchronous, HasSubstr("ANY 2"));
  Return(0);
  node(0).read_write = false;
  EXPECT_THAT(Recover(kAny1), IsOk()) << log_.text;
  EXPECT_THAT(node(1).synchronous, HasSubstr("ANY 1"));
  EXPECT_EQ(shard_.Lost(1), 0);
}

TEST_F(DurabilityTest, ANodeTakenOutOfTheFileMayHaveTheOnlyOtherCopy) {
  ShardConfig config = shard_.config();
  config.nodes.erase(config.nodes.begin());  // a, which was lost
  config.nodes.push_back({.id = "d",
                          .agent = "d.example:7420",
                          .server_name = "",
                          .postgres = {"d.example", 5432},
                          .gate = {},
                          .transfer = {}});
  const Proof proof =
      ProveAcknowledged(config, {true, true, false}, {DurabilityRule{2, {"a", "b", "c"}}});
  EXPECT_EQ(proof.needed, 3u) << "b or c may be the one that has it, d is not known to";
}

// Operators with different files, nodes that come and go: whoever leads has all that was ever
// acknowledged.
TEST_F(DurabilityTest, WhateverThePoliciesNoAcknowledgedCommitIsLost) {
  int led = 0, refused = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
    FakeShard shard(ThreeNodes());
    std::string story;
    for (int step = 0; step < 30; ++step) {
      FakeNode& node = shard.at(below(3));
      switch (below(4)) {
        case 0:
          node.reachable = node.server_up = false;
          break;
        case 1:
          node.reachable = node.server_up = true;
          break;
        default: {
          ShardConfig config = shard.config();
          config.policy = below(2) == 0 ? kAny1 : kAny2;
          QuietLog log;
          Procedure procedure(config, shard, log, fmt::format("run{}", step));
          const uint32_t what = below(3);
          const absl::Status done = what == 0   ? procedure.Failover({})
                                    : what == 1 ? procedure.Reparent({})
                                                : procedure.Recover();
          story += log.text + std::string(done.message()) + "\n----\n";
          ++(done.ok() ? led : refused);
        }
      }
      shard.Tick();
      uint64_t last = 0;  // a former primary that comes back acknowledges nothing
      for (size_t i = 0; i < 3; ++i) last = std::max(last, shard.at(i).stored.term);
      const auto primary = FindPrimary(shard.Views());
      if (primary && shard.at(*primary).stored.term == last) {
        ASSERT_EQ(shard.Lost(*primary), 0) << "seed " << seed << " step " << step << "\n" << story;
      }
      ASSERT_FALSE(shard.two_primaries()) << "seed " << seed << "\n" << story;
    }
  }
  EXPECT_GT(led, 1000);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace metal::shard
