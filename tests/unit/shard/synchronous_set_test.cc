#include "tools/metalctl/shard/synchronous_set.h"

#include "tests/unit/shard/procedure_fixture.h"

namespace metal::shard {
namespace {

using Kind = SetChange::Kind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;

class SynchronousSetTest : public ::testing::Test {
 protected:
  SynchronousSetTest() { PutInForce({"b", "c"}); }
  void PutInForce(const std::vector<std::string>& ids) {
    views_[0].synchronous_standbys = config_.policy.Setting(ids);
  }
  void Condemn(size_t node, FaultWish wanted = FaultWish::kFailover, bool fatal = true) {
    views_[node].faults.push_back(ConfirmedFault(wanted, fatal));
  }
  SetChange Decide() { return DecideSet(config_, views_, 0); }

  ShardConfig config_ = ThreeNodes();
  std::vector<NodeView> views_ = HealthyShard();
};

TEST_F(SynchronousSetTest, NobodyLeavesAShardThatIsWell) { EXPECT_EQ(Decide(), SetChange()); }

TEST_F(SynchronousSetTest, ASickStandbyLeavesAndWhatHangsFromThenOnIsSaid) {
  Condemn(1);
  const SetChange change = Decide();
  EXPECT_EQ(change.kind, Kind::kLeaveOut);
  EXPECT_EQ(change.node, 1u);
  EXPECT_THAT(change.standbys, ElementsAre("c"));
  EXPECT_THAT(change.why, HasSubstr("b is sick: write_error nvme0n1"));
  EXPECT_THAT(change.why, HasSubstr("every commit waits for c now, and hangs when it is lost too"));
}

TEST_F(SynchronousSetTest, WhatAsksByItsReactionLeavesTooAndWhatAsksForNothingStays) {
  Condemn(2, FaultWish::kReparent, false);
  EXPECT_EQ(Decide().kind, Kind::kLeaveOut);
  views_[2].faults[0].wanted = FaultWish::kNothing;
  EXPECT_EQ(Decide(), SetChange()) << "suspected, observed alone, or acknowledged";
}

TEST_F(SynchronousSetTest, OneThatIsFencedAndOutAlreadyKeepsNoOtherInTheSet) {
  config_.nodes.push_back(config_.nodes[2]);
  config_.nodes[3].id = "d";
  views_.push_back(HealthyNode("d"));
  views_[0].followers.push_back(
      {.name = "d", .state = "streaming", .sync_state = "quorum", .flushed = {0x5000}});
  views_[1].fenced = true;
  views_[1].fence_reason = "disk: gone nvme0n1";
  views_[1].role = NodeRole::kUnknown;
  views_[1].server = ServerState::kStopped;
  PutInForce({"b", "c", "d"});
  Condemn(2);
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("b and c are sick: more than one member"));
  PutInForce({"c", "d"});
  EXPECT_EQ(Decide().kind, Kind::kLeaveOut);
  EXPECT_EQ(Decide().node, 2u);
  EXPECT_THAT(Decide().standbys, ElementsAre("d"));
  EXPECT_THAT(WantedSet(config_, views_, 0), ElementsAre(3u));
  EXPECT_THAT(WantedSet(config_, views_, 3), ElementsAre(0u)) << "neither of the two";
}

TEST_F(SynchronousSetTest, APolicyThatTheOthersCannotMeetIsNotMadeLess) {
  Condemn(1);
  views_[0].followers[1].state = "catchup";
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("b is sick (write_error nvme0n1) and stays"));
  views_[0].followers[1].state = "streaming";
  config_.policy.count = 2;
  PutInForce({"b", "c"});
  EXPECT_EQ(Decide().kind, Kind::kNone) << "ANY 2 of one";
  EXPECT_THAT(Decide().why, HasSubstr("the policy is ANY 2"));
}

TEST_F(SynchronousSetTest, NeverMoreThanOneMember) {
  Condemn(1);
  Condemn(2);
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("b and c are sick: more than one member"));
}

TEST_F(SynchronousSetTest, APolicyThatIsNotTheFilesIsLeftToRecover) {
  views_[0].synchronous_standbys = "ANY 2 (\"b\", \"c\")";
  EXPECT_EQ(Decide(), SetChange());
  Condemn(1);
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("metalctl shard recover"));
  views_[0].synchronous_standbys = "";
  EXPECT_EQ(SetInForce(config_, views_[0]), std::nullopt);
}

TEST_F(SynchronousSetTest, AStandbyComesBackOnceItIsWellStreamsAndHasCaughtUp) {
  PutInForce({"c"});
  EXPECT_EQ(Decide().kind, Kind::kTakeBack);
  EXPECT_THAT(Decide().standbys, ElementsAre("b", "c")) << "in the file's order";
  Condemn(1);
  EXPECT_EQ(Decide().kind, Kind::kNone);
  EXPECT_THAT(Decide().why, HasSubstr("rebuild wanted: metalctl shard replace b"));
  views_[1].faults.clear();
  views_[0].received = {(uint64_t{10} << 20) + 0x5000};
  EXPECT_EQ(Decide(), SetChange()) << "as the primary sees it, it is behind";
  views_[0].received = {0x5000};
  views_[1].disk = "stalled";
  EXPECT_EQ(Decide(), SetChange()) << "also what is only suspected keeps it out";
}

TEST_F(SynchronousSetTest, WhoeverIsCondemnedIsNotInTheSetOfANewLeader) {
  EXPECT_THAT(WantedSet(config_, views_, 1), ElementsAre(0u, 2u));
  Condemn(0);
  EXPECT_THAT(WantedSet(config_, views_, 1), ElementsAre(2u));
  views_[2].answered = false;
  EXPECT_THAT(WantedSet(config_, views_, 1), ElementsAre(0u, 2u)) << "the rest are not enough";
}

using SetProcedureTest = ProcedureTest;

SetChange DecisionOf(FakeShard& shard) { return DecideSet(shard.config(), shard.Views(), 0); }

TEST_F(SetProcedureTest, TheSetChangesAndComesBackAndNothingAcknowledgedIsLost) {
  for (const bool condemned : {true, false}) {
    node(1).disk_condemned = condemned;
    const SetChange change = DecisionOf(*shard_);
    ASSERT_EQ(change.kind, condemned ? Kind::kLeaveOut : Kind::kTakeBack);
    Procedure procedure(shard_->config(), *shard_, log_, "set");
    ASSERT_THAT(procedure.ChangeSet(change), IsOk()) << log_.text;
    EXPECT_EQ(node(0).synchronous, condemned ? R"(ANY 1 ("c"))" : R"(ANY 1 ("b", "c"))");
    EXPECT_EQ(node(0).stored.term, 4u);
    shard_->Tick();
  }
  ExpectHealthy("back");
}

TEST_F(SetProcedureTest, ADecisionThatIsOldChangesNothing) {
  node(1).disk_condemned = true;
  const SetChange change = DecisionOf(*shard_);
  node(1).disk_condemned = false;
  Procedure procedure(shard_->config(), *shard_, log_, "set");
  EXPECT_THAT(procedure.ChangeSet(change), StatusIs(absl::StatusCode::kAborted, HasSubstr("b is")));
  EXPECT_EQ(node(0).synchronous, R"(ANY 1 ("b", "c"))");
}

TEST_F(SetProcedureTest, WhatAnotherOrchestratorHoldsIsItsOwn) {
  for (size_t i = 0; i < shard_->size(); ++i) node(i).stored.orchestrator = "robot";
  node(1).disk_condemned = true;
  Procedure procedure(shard_->config(), *shard_, log_, "set");
  EXPECT_THAT(procedure.ChangeSet(DecisionOf(*shard_)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("held by robot")));
}

TEST_F(SetProcedureTest, RecoverLeavesTheSickOneOutAndNamesIt) {
  node(1).disk_condemned = true;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_EQ(node(0).synchronous, R"(ANY 1 ("c"))");
  EXPECT_THAT(shard_->Findings(),
              ::testing::UnorderedElementsAre("rebuild_wanted b", "left_out b", "node_fault b"));
}

TEST_F(SetProcedureTest, RecoverStartsNoServerOnACondemnedDisk) {
  node(1).disk_condemned = true;
  node(1).server_up = false;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_FALSE(node(1).server_up);
  EXPECT_THAT(log_.text, HasSubstr("not started on a disk that is condemned"));
}

TEST_F(SetProcedureTest, AnElectionAvoidsACondemnedDiskAndTakesItsWalOver) {
  node(2).source.reset();
  shard_->Tick();
  node(0).reachable = node(0).server_up = false;
  node(1).disk_condemned = true;
  EXPECT_GT(shard_->Lost(2), 0) << "acknowledged by b alone";
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 2u);
  EXPECT_EQ(shard_->Lost(2), 0);
  EXPECT_THAT(log_.text, HasSubstr("take_over c: has WAL of b"));
}

TEST_F(SetProcedureTest, ACondemnedNodeLeadsWhenItIsNamedOrAlone) {
  node(0).reachable = node(0).server_up = false;
  node(1).disk_condemned = node(2).disk_condemned = true;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  ASSERT_TRUE(Primary().has_value()) << "both are sick: one of them is better than none";
  node(*Primary()).disk_condemned = false;
  const size_t named = *Primary() == 1 ? 2 : 1;
  ASSERT_THAT(Run(Command::kFailover, {.to = named}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), named);
}

TEST_F(SetProcedureTest, ACondemnedStandbyIsNoCandidateAndACondemnedPrimaryIsNotWell) {
  node(2).disk_condemned = true;
  EXPECT_THAT(Run(Command::kReparent, {.to = 2}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("its disk is sick")));
  node(2).disk_condemned = false;
  node(0).disk_condemned = true;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_NE(Primary(), 0u);
}

}  // namespace
}  // namespace metal::shard
