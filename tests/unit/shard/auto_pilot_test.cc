#include "tools/metalctl/shard/auto_pilot.h"

#include "gmock/gmock.h"
#include "tests/unit/shard/healthy_shard.h"

namespace metal::shard {
namespace {

using Kind = AutoChange::Kind;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class AutoPilotTest : public ::testing::Test {
 protected:
  void Ask(size_t node, FaultWish wanted, bool fatal = true) {
    views_[node].faults.push_back(ConfirmedFault(wanted, fatal));
  }
  void FenceForDisk(size_t node) {
    views_[node].fenced = true;
    views_[node].fence_reason = "disk: write_error nvme0n1";
  }
  AutoChange Decide() { return DecideChange(config_, views_); }

  ShardConfig config_ = ThreeNodes();
  std::vector<NodeView> views_ = HealthyShard();  // node 0 leads
  base::MonotonicTime now_ = base::MonotonicTime() + absl::Hours(1);
};

TEST_F(AutoPilotTest, NothingIsDoneToAShardThatIsWell) { EXPECT_EQ(Decide(), AutoChange()); }

TEST_F(AutoPilotTest, APrimaryThatAsksIsReplacedByTheStandbyWithMostWal) {
  views_[2].received.value += 8;
  Ask(0, FaultWish::kReparent, false);
  EXPECT_EQ(Decide().kind, Kind::kReparent);
  EXPECT_EQ(Decide().to, 2u);
  EXPECT_FALSE(Decide().may_be_forced);
  views_[0].faults[0].fatal_disk = true;
  EXPECT_EQ(Decide().kind, Kind::kReparent);
  EXPECT_TRUE(Decide().may_be_forced) << "it may not be able to hand over";
  Ask(0, FaultWish::kFailover);
  EXPECT_EQ(Decide().kind, Kind::kFailover);
  EXPECT_THAT(Decide().why, HasSubstr("write_error nvme0n1"));
}

TEST_F(AutoPilotTest, APrimaryThatFencedItselfIsFailedOver) {
  NodeView& old = views_[0];
  old.fenced = true;
  old.fence_reason = "disk: write_error nvme0n1";
  old.wanted = NodeRole::kStandby;
  old.role = NodeRole::kUnknown;
  old.server = ServerState::kStopped;
  for (size_t i : {1, 2}) views_[i].receiver_state = "";
  EXPECT_EQ(Decide().kind, Kind::kFailover);
  EXPECT_THAT(Decide().why, HasSubstr("fenced itself: disk: "));
  old.fence_reason = "maintenance";
  EXPECT_EQ(Decide().kind, Kind::kNone) << "somebody else did that, and knows why";
}

TEST_F(AutoPilotTest, APrimaryThatCameBackAsAStandbyLeadsAgain) {
  views_[0].role = NodeRole::kStandby;  // still wanted as the primary
  EXPECT_EQ(Decide().kind, Kind::kRecover);
  EXPECT_EQ(Decide().to, 0u);
  views_[2].answered = false;
  EXPECT_EQ(Decide().kind, Kind::kRecover) << "one copy of the policy may be missing";
  views_[1].answered = false;
  EXPECT_EQ(Decide().kind, Kind::kNone) << "the two others may have a primary";
  EXPECT_THAT(Decide().why, HasSubstr("too few nodes answer"));
  views_[1].answered = views_[2].answered = true;
  views_[1].term = 5;
  EXPECT_EQ(Decide(), AutoChange()) << "a later term was begun";
  views_[1].term = 4;
  views_[0].orchestrator = "somebody";
  EXPECT_EQ(Decide(), AutoChange()) << "another orchestrator's term";
}

TEST_F(AutoPilotTest, AChangeThatFailedIsTriedAgainSoonAndOneThatSucceededIsNotFollowedByAnother) {
  AutoPilot pilot;
  Ask(0, FaultWish::kFailover);
  const auto look = [&](absl::Duration after) {
    const Kind first = pilot.Observe(config_, views_, now_ + after).kind;
    return first != Kind::kNone ? first : pilot.Observe(config_, views_, now_ + after).kind;
  };
  ASSERT_EQ(look(absl::ZeroDuration()), Kind::kFailover);
  pilot.Ended(false, now_);
  EXPECT_EQ(look(absl::Seconds(4)), Kind::kNone);
  ASSERT_EQ(look(absl::Seconds(6)), Kind::kFailover);
  pilot.Ended(false, now_ + absl::Seconds(6));
  EXPECT_EQ(look(absl::Seconds(15)), Kind::kNone) << "twice as long";
  ASSERT_EQ(look(absl::Seconds(17)), Kind::kFailover);
  pilot.Ended(true, now_ + absl::Seconds(17));
  EXPECT_EQ(look(absl::Minutes(10)), Kind::kNone);
  EXPECT_EQ(look(absl::Minutes(11)), Kind::kFailover);
}

TEST_F(AutoPilotTest, NeverWhenMoreThanOneMemberIsSick) {
  Ask(0, FaultWish::kFailover);
  Ask(1, FaultWish::kNothing);
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("more than one member"));
}

// a fenced itself and is down; c leads since, in the set of which a is none.
TEST_F(AutoPilotTest, AMemberThatIsFencedAlreadyDoesNotKeepTheLeadOnTheNextSickDisk) {
  FenceForDisk(0);
  views_[0].role = NodeRole::kUnknown;
  views_[0].wanted = NodeRole::kStandby;
  views_[0].server = ServerState::kStopped;
  views_[0].fence_term = 4;
  NodeView& leader = views_[2];
  leader.role = leader.wanted = NodeRole::kPrimary;
  leader.followers_seen = true;
  leader.followers = {
      {.name = "b", .state = "streaming", .sync_state = "quorum", .flushed = {0x5000}}};
  leader.synchronous_standbys = config_.policy.Setting({"b"});
  for (NodeView& view : views_) view.term = 5;
  for (const size_t i : {1, 2}) views_[i].last_led_term = 5;
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("metalctl shard replace a"));
  Ask(2, FaultWish::kFailover);
  EXPECT_EQ(Decide().kind, Kind::kFailover);
  EXPECT_EQ(Decide().to, 1u);
  leader.synchronous_standbys = config_.policy.Setting({"a", "b"});
  EXPECT_EQ(Decide().kind, Kind::kNone) << "a is not out of the set";
  EXPECT_THAT(Decide().why, HasSubstr("more than one member"));
  // It has fenced itself too.
  leader.role = NodeRole::kUnknown;
  leader.wanted = NodeRole::kStandby;
  leader.server = ServerState::kStopped;
  FenceForDisk(2);
  leader.fence_term = 5;
  EXPECT_EQ(Decide().kind, Kind::kFailover);
  EXPECT_EQ(Decide().to, 1u);
  EXPECT_THAT(Decide().why, HasSubstr("c asks for it"));
}

TEST_F(AutoPilotTest, AnOldFenceIsNotWhyALaterPrimaryIsAway) {
  FenceForDisk(0);
  views_[0].role = NodeRole::kUnknown;
  views_[0].wanted = NodeRole::kStandby;
  views_[0].fence_term = 4;
  views_[2].answered = false;  // it led in term 5
  views_[1].term = views_[1].last_led_term = 5;
  EXPECT_EQ(Decide(), AutoChange()) << "it may only be restarted";
}

TEST_F(AutoPilotTest, ASickStandbyLeavesTheSetAtOnceAlsoAfterAnotherChangeOfIt) {
  AutoPilot pilot;
  views_[0].synchronous_standbys = config_.policy.Setting({"c"});
  const auto look = [&](absl::Duration after) {
    const SetChange::Kind first = pilot.Observe(config_, views_, now_ + after).set.kind;
    return first != SetChange::Kind::kNone ? first
                                           : pilot.Observe(config_, views_, now_ + after).set.kind;
  };
  ASSERT_EQ(look(absl::ZeroDuration()), SetChange::Kind::kTakeBack);
  views_[0].synchronous_standbys = config_.policy.Setting({"b", "c"});
  Ask(1, FaultWish::kFailover);
  EXPECT_EQ(look(absl::Seconds(4)), SetChange::Kind::kNone);
  EXPECT_EQ(look(absl::Seconds(6)), SetChange::Kind::kLeaveOut) << "commits may wait for it";
}

TEST_F(AutoPilotTest, ASickStandbyLeavesTheSynchronousSetOnTwoLooksAndItsRebuildIsAsked) {
  AutoPilot pilot;
  views_[0].synchronous_standbys = config_.policy.Setting({"b", "c"});
  Ask(1, FaultWish::kFailover);
  EXPECT_EQ(pilot.Observe(config_, views_, now_).kind, Kind::kNone);
  const AutoChange change = pilot.Observe(config_, views_, now_);
  ASSERT_EQ(change.kind, Kind::kSet);
  EXPECT_EQ(change.set.kind, SetChange::Kind::kLeaveOut);
  EXPECT_EQ(change.set.node, 1u);
  views_[0].synchronous_standbys = config_.policy.Setting(change.set.standbys);
  EXPECT_EQ(pilot.Observe(config_, views_, now_).kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("rebuild wanted: metalctl shard replace b"));
}

TEST_F(AutoPilotTest, TheSetDoesNotFlapWithAFaultThatComesAndGoes) {
  AutoPilot pilot;
  views_[0].synchronous_standbys = config_.policy.Setting({"b", "c"});
  Ask(1, FaultWish::kFailover);
  for (int i = 0; i < 2; ++i) pilot.Observe(config_, views_, now_);
  views_[0].synchronous_standbys = config_.policy.Setting({"c"});
  views_[1].faults.clear();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(pilot.Observe(config_, views_, now_ + absl::Seconds(50)).kind, Kind::kNone);
  }
  const AutoChange change = pilot.Observe(config_, views_, now_ + absl::Minutes(2));
  EXPECT_EQ(change.set.kind, SetChange::Kind::kTakeBack);
}

TEST_F(AutoPilotTest, WhatOnlyTheProbesOfAStandbySaySetsNothingInMotion) {
  views_[0].synchronous_standbys = config_.policy.Setting({"b", "c"});
  views_[1].disk = "stalled";
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("as its probes alone see it"));
}

TEST_F(AutoPilotTest, ASickPrimaryIsLeftAsItsOwnPolicySaysAndNeverATakenOutStandby) {
  Ask(0, FaultWish::kNothing);
  EXPECT_EQ(Decide(), AutoChange()) << "it only observes";
}

TEST_F(AutoPilotTest, WithoutAStandbyThatIsWellNothingIsDone) {
  Ask(0, FaultWish::kFailover);
  views_[1].answered = false;
  views_[2].fenced = true;
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("no standby that is well"));
}

TEST_F(AutoPilotTest, ActsOnTwoLooksInARowAndOnceInTenMinutes) {
  AutoPilot pilot;
  EXPECT_THAT(pilot.Observe(config_, views_, now_).why, IsEmpty());
  Ask(0, FaultWish::kFailover);
  EXPECT_EQ(pilot.Observe(config_, views_, now_).kind, Kind::kNone) << "once may be a mistake";
  EXPECT_EQ(pilot.Observe(config_, views_, now_).kind, Kind::kFailover);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(pilot.Observe(config_, views_, now_ + absl::Minutes(9)).kind, Kind::kNone);
  }
  EXPECT_EQ(pilot.Observe(config_, views_, now_ + absl::Minutes(11)).kind, Kind::kFailover);
}

TEST_F(AutoPilotTest, TwoLooksThatDifferAreNotTwo) {
  AutoPilot pilot;
  Ask(0, FaultWish::kReparent, false);
  EXPECT_EQ(pilot.Observe(config_, views_, now_).kind, Kind::kNone);
  Ask(0, FaultWish::kFailover);
  EXPECT_EQ(pilot.Observe(config_, views_, now_).kind, Kind::kNone);
  EXPECT_EQ(pilot.Observe(config_, views_, now_).kind, Kind::kFailover);
}

}  // namespace
}  // namespace metal::shard
