#include "tests/unit/shard/procedure_fixture.h"

namespace metal::shard {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;

TEST_F(ProcedureTest, ReparentHandsOverToTheNodeThatIsNamed) {
  ASSERT_THAT(Run(Command::kReparent, {.to = 2}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 2u);
  EXPECT_EQ(node(2).stored.term, 5u);
  EXPECT_THAT(node(0).slots, IsEmpty()) << "a standby keeps WAL for nobody";
  ExpectHealthy("after");
}

TEST_F(ProcedureTest, ReparentAgainAndAgain) {
  for (const size_t to : {1, 2, 0, 1}) {
    ASSERT_THAT(Run(Command::kReparent, {.to = to}), IsOk()) << log_.text;
    EXPECT_EQ(Primary(), to);
    ExpectHealthy(fmt::format("to {}", to));
  }
}

TEST_F(ProcedureTest, ReparentToThePrimaryChangesNoTerm) {
  ASSERT_THAT(Run(Command::kReparent, {.to = 0}), IsOk()) << log_.text;
  EXPECT_EQ(node(0).stored.term, 4u);
  ExpectHealthy("after");
}

TEST_F(ProcedureTest, AnUnfitCandidateIsRefusedBeforeAnythingChanges) {
  const auto refused = [&](const std::string& why) {
    EXPECT_THAT(Run(Command::kReparent, {.to = 2}),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(why)));
    EXPECT_EQ(node(0).stored.term, 4u) << why;
    EXPECT_TRUE(node(0).read_write) << why;
    EXPECT_THAT(node(2).slots, IsEmpty()) << why;
  };
  node(2).fenced = true;
  refused("it is fenced");
  node(2).fenced = false;
  node(2).disk_sick = true;
  refused("a disk of it is stalled");
  node(2).disk_sick = false;
  node(2).source.reset();
  refused("does not stream from a");
  node(2).source = 0;
  node(2).says = [](NodeView& view) { view.lag_bytes = 2 << 20; };
  refused("it is 2097152 bytes behind, max_lag is");
  node(2).says = {};
  node(2).reachable = false;
  refused("its agent does not answer");
}

TEST_F(ProcedureTest, ANodeThatIsNotTheOneOfTheFileIsNeverChanged) {
  const std::pair<const char*, std::function<void(NodeView&)>> wrong[] = {
      {"wrong_node", [](NodeView& view) { view.node_id = "c"; }},
      {"wrong_shard", [](NodeView& view) { view.cluster_id = "people"; }},
      {"different_versions", [](NodeView& view) { view.version = 160004; }},
  };
  for (const auto& [finding, says] : wrong) {
    node(1).says = says;
    for (const Command command :
         {Command::kReparent, Command::kFailover, Command::kRecover, Command::kReplace}) {
      EXPECT_THAT(Run(command, {.to = 2}),
                  StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(finding)));
    }
  }
  EXPECT_EQ(Primary(), 0u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(node(i).stored.term, 4u);
  EXPECT_EQ(node(2).cloned_at, 0u);
}

TEST_F(ProcedureTest, TheBestCandidateIsTakenWhenNoneIsNamed) {
  node(1).disk_sick = true;
  ASSERT_THAT(Run(Command::kReparent), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 2u);
}

TEST_F(ProcedureTest, ACandidateThatCannotBePromotedGivesTheLeadBack) {
  node(2).refuses_promotion = true;
  EXPECT_THAT(Run(Command::kReparent, {.to = 2}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("a leads, as before")));
  EXPECT_EQ(Primary(), 0u);
  ExpectHealthy("undone");
}

TEST_F(ProcedureTest, TheCandidateHasWhatThePrimaryHasNowBeforeClientsWait) {
  shard_->Tick();
  node(0).status_behind = 0x100;
  const base::Lsn now = node(0).wal.received;
  ASSERT_THAT(Run(Command::kReparent, {.to = 2}), IsOk()) << log_.text;
  const std::string said = "catch_up c: has ";
  const size_t at = log_.text.find(said);
  ASSERT_NE(at, std::string::npos) << log_.text;
  const size_t end = log_.text.find('\n', at);
  const auto marker = base::Lsn::Parse(log_.text.substr(at + said.size(), end - at - said.size()));
  ASSERT_TRUE(marker.has_value()) << log_.text;
  EXPECT_GE(*marker, now);
}

TEST_F(ProcedureTest, ClientsDoNotWaitLongForACandidateThatIsCutOffAtTheLastMoment) {
  node(0).before_demote = [this] { node(2).source.reset(); };
  const absl::Time begin = shard_->clock().Now();
  EXPECT_THAT(Run(Command::kReparent, {.to = 2}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("a leads, as before")));
  EXPECT_LT(shard_->clock().Now() - begin, absl::Seconds(10));
  ExpectHealthy("undone");
}

TEST_F(ProcedureTest, ADoorThatCannotBeHeldStopsAReparentBeforeItBegins) {
  node(1).door_refuses = true;
  EXPECT_THAT(Run(Command::kReparent, {.to = 2}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nothing was changed")));
  EXPECT_TRUE(node(0).read_write);
  EXPECT_EQ(node(0).stored.term, 4u);
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  ExpectHealthy("doors are open");
}

TEST_F(ProcedureTest, ASilentNodesDoorDoesNotKeepTheLeadWhereItIsButIsTold) {
  ShardConfig config = ThreeNodes();
  for (ShardNode& each : config.nodes) each.gate = {each.id + ".example", 6432};
  shard_ = std::make_unique<FakeShard>(config);
  node(1).reachable = false;
  ASSERT_THAT(Run(Command::kReparent, {.to = 2}), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("b does not answer: the door there is not held"));
  EXPECT_EQ(Primary(), 2u);
  node(1).reachable = true;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  ExpectHealthy("its door leads to the primary again");
}

TEST_F(ProcedureTest, DoorsAreHeldForLongerWhenTheOldPrimaryTakesItsTime) {
  node(0).shutdown_takes = absl::Seconds(4);
  ASSERT_THAT(Run(Command::kReparent, {.to = 2}), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, Not(HasSubstr("hold_longer")));
  node(2).shutdown_takes = absl::Seconds(15);
  ASSERT_THAT(Run(Command::kReparent, {.to = 0}), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("hold_longer b: held"));
  ExpectHealthy("moved");
}

TEST_F(ProcedureTest, ANodeWithAnotherDatabaseKeepsNobodyFromLeading) {
  // The primary's host came back with a database of its own.
  node(0).system_id = 78;
  node(0).read_write = false;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 1u);
  EXPECT_EQ(shard_->Lost(1), 0);
  EXPECT_EQ(node(0).stored.term, 4u) << "it is not even frozen";
  EXPECT_THAT(log_.text, HasSubstr("rejoin a: its data directory is another database's"));
  node(1).system_id = 79;
  EXPECT_THAT(Run(Command::kFailover),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("different_systems")))
      << "which database is the shard's is not known";
}

TEST_F(ProcedureTest, ReparentFromAPrimaryThatHangsIsAnElection) {
  node(0).hangs = true;
  ASSERT_THAT(Run(Command::kReparent, {.to = 2}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 2u);
  EXPECT_EQ(shard_->Lost(2), 0);
  EXPECT_EQ(node(0).stored.term, 5u) << "it has no order to write when it wakes up";
}

TEST_F(ProcedureTest, FailoverWithoutThePrimary) {
  node(0).reachable = node(0).server_up = false;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 1u);
  EXPECT_EQ(shard_->Lost(1), 0);
  EXPECT_THAT(shard_->Findings(), ElementsAre("agent_unreachable a"));
  // It comes back with its old order, reads and writes, and nobody acknowledges it.
  node(0).reachable = node(0).server_up = true;
  const size_t before = shard_->acknowledged();
  node(1).source = 2;  // nothing is acknowledged by the new one for a moment either
  shard_->Tick();
  EXPECT_GE(shard_->acknowledged(), before);
  EXPECT_FALSE(shard_->two_primaries());
  EXPECT_THAT(shard_->Findings(), Contains("old_primary a"));
}

TEST_F(ProcedureTest, FailoverToANodeThatIsBehindTakesOverWhatAnotherOneHas) {
  node(1).source.reset();
  shard_->Tick();
  node(0).reachable = node(0).server_up = false;
  EXPECT_GT(shard_->Lost(1), 0) << "acknowledged by c alone";
  ASSERT_THAT(Run(Command::kFailover, {.to = 1}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 1u);
  EXPECT_EQ(shard_->Lost(1), 0);
  EXPECT_THAT(log_.text, HasSubstr("take_over b: has WAL of c"));
}

TEST_F(ProcedureTest, ANodeThatIsAskedForIsWaitedForThoughTheOthersAreEnough) {
  node(0).read_write = false;  // a demotion whose operator died
  node(0).wanted = NodeRole::kStandby;
  node(1).answers_last = true;
  ASSERT_THAT(Run(Command::kReparent, {.to = 1}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 1u);
  node(1).read_write = false;
  node(1).wanted = NodeRole::kStandby;
  ASSERT_THAT(Run(Command::kReparent), IsOk()) << log_.text;
  EXPECT_NE(Primary(), 1u) << "nobody asked for it";
}

TEST_F(ProcedureTest, FailoverDoesNotWaitForAPrimaryThatHangs) {
  node(0).hangs = true;
  const absl::Time begin = shard_->clock().Now();
  ASSERT_THAT(Run(Command::kFailover, {.to = 2}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 2u);
  EXPECT_LT(shard_->clock().Now() - begin, absl::Minutes(2));
}

TEST_F(ProcedureTest, FailoverOfALivePrimaryLosesNothing) {
  ASSERT_THAT(Run(Command::kFailover, {.to = 1}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 1u);
  ExpectHealthy("after");
}

TEST_F(ProcedureTest, FailoverLeavesAPrimaryAloneThatIsWell) {
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 0u);
  EXPECT_EQ(node(0).stored.term, 4u);
  EXPECT_THAT(log_.text, HasSubstr("a is the primary and answers"));
  node(0).disk_sick = true;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 1u);
  EXPECT_EQ(shard_->Lost(1), 0);
}

TEST_F(ProcedureTest, FailoverWithoutProofChangesNothingAndNamesWhoIsMissing) {
  node(0).reachable = node(0).server_up = false;
  node(2).reachable = false;
  EXPECT_THAT(Run(Command::kFailover),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("missing: a, c")));
  EXPECT_EQ(node(1).stored.term, 4u);
  ASSERT_THAT(Run(Command::kFailover, {.to = std::nullopt, .accept_data_loss = true}), IsOk());
  EXPECT_EQ(Primary(), 1u);
}

// They answer: to lead without them is not what helps.
TEST_F(ProcedureTest, NodesThatLetTheCallerChangeNothingAreNotMissing) {
  node(0).reachable = node(0).server_up = false;
  for (size_t i : {1, 2}) node(i).denies_terms = true;
  EXPECT_THAT(Run(Command::kFailover),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("begin_term on ")));
  EXPECT_THAT(Run(Command::kFailover, {.to = std::nullopt, .accept_data_loss = true}),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("begin_term on ")));
  EXPECT_EQ(node(1).stored.term, 4u);
  // One of them is enough for the proof with the old primary's answer.
  node(0).reachable = node(0).server_up = true;
  node(1).denies_terms = false;
  EXPECT_THAT(Run(Command::kFailover, {.to = 1}), IsOk()) << log_.text;
}

TEST_F(ProcedureTest, ANodeThatLostItsDataIsNoProof) {
  node(0).reachable = node(0).server_up = false;
  node(1).empty = true;
  EXPECT_THAT(Run(Command::kFailover),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("missing: a, b")));
}

TEST_F(ProcedureTest, TheNodeWithTheMostWalLeadsOrIsTakenOver) {
  node(0).reachable = node(0).server_up = false;
  node(1).wal.received.value -= 0x100;
  node(1).source.reset();
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 2u);
  EXPECT_EQ(shard_->Lost(2), 0);
}

TEST_F(ProcedureTest, AStoppedServerIsStartedToReadItsWal) {
  node(0).reachable = node(0).server_up = false;
  node(2).server_up = false;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  EXPECT_THAT(shard_->Findings(), ElementsAre("agent_unreachable a"));
}

TEST_F(ProcedureTest, AnotherOrchestratorsShardIsLeftAlone) {
  for (size_t i = 0; i < 3; ++i) node(i).stored.orchestrator = "robot";
  EXPECT_THAT(Run(Command::kRecover),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("held by robot")));
}

TEST_F(ProcedureTest, OfTwoRunsAtOnceANodeObeysOne) {
  // Another run has begun the same term on b, and would promote it.
  node(1).stored = {5, "metalctl:other"};
  node(0).reachable = node(0).server_up = false;
  ASSERT_THAT(Run(Command::kFailover, {.to = 2}), IsOk()) << log_.text;
  EXPECT_EQ(node(2).stored.term, 6u) << "a term that is taken is not shared";
}

// The agents' state was lost, or the data came from another shard.
TEST_F(ProcedureTest, OneRunSufficesWhereTheDatabaseKnowsOfLaterTermsThanTheAgents) {
  for (size_t i = 0; i < 3; ++i) {
    node(i).wal.terms.push_back({9, 3, {0x3000}, "a"});
    node(i).read_write = false;
    node(i).wanted = NodeRole::kStandby;
  }
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_EQ(node(0).stored.term, 10u);
  ExpectHealthy("recovered");
}

TEST_F(ProcedureTest, OneRunSufficesAlsoWhereServersHaveToStartToTellOfLaterTerms) {
  for (size_t i = 0; i < 3; ++i) {
    node(i).wal.terms.push_back({9, 3, {0x3000}, "a"});
    node(i).server_up = false;
    node(i).wanted = NodeRole::kStandby;
  }
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("the database notes a primary of term 9"));
  EXPECT_EQ(node(0).stored.term, 10u);
  ExpectHealthy("recovered");
}

TEST_F(ProcedureTest, InitLeadsADatabaseThatKnowsOfLaterTermsThanItsAgent) {
  Empty(*shard_);
  node(0).empty = false;
  node(0).wal = {1, {0x1000}, {}, {{7, 1, {0x900}, "elsewhere"}}};
  ASSERT_THAT(Run(Command::kInit), IsOk()) << log_.text;
  EXPECT_EQ(node(0).stored.term, 8u);
  ExpectHealthy("made");
}

TEST_F(ProcedureTest, InitMakesAShardOfEmptyNodes) {
  Empty(*shard_);
  ASSERT_THAT(Run(Command::kInit), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 0u);
  EXPECT_EQ(node(0).stored.term, 1u);
  ExpectHealthy("made");
  ASSERT_THAT(Run(Command::kInit), IsOk()) << "again, with nothing to do";
  EXPECT_EQ(node(0).stored.term, 1u);
}

TEST_F(ProcedureTest, InitLeavesDataAlone) {
  node(0).empty = node(2).empty = true;
  node(0).server_up = node(2).server_up = false;
  EXPECT_THAT(Run(Command::kInit),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("b has data")));
  node(1).reachable = false;
  EXPECT_THAT(Run(Command::kInit), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ProcedureTest, ReplaceClonesAStandby) {
  node(2).wal = {9, {0x9999}, {}};
  ASSERT_THAT(Run(Command::kReplace, {.to = 2}), IsOk()) << log_.text;
  EXPECT_EQ(node(2).cloned_at, shard_->config().clone_rate);
  EXPECT_EQ(node(2).copied_from, 1u) << "a standby serves copies, the primary clients";
  ExpectHealthy("replaced");
  EXPECT_THAT(Run(Command::kReplace, {.to = 0}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("it is the primary")));
  node(1).source.reset();
  EXPECT_THAT(Run(Command::kReplace, {.to = 2}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("commits wait")));
}

TEST_F(ProcedureTest, ReplaceLiftsTheFenceOfANodeWhoseDiskWasSickAndItLeadsAndCountsAgain) {
  node(2).fenced = true;
  node(2).fence_reason = "disk: write_error nvme0n1";
  node(2).server_up = false;
  ASSERT_THAT(Run(Command::kReplace, {.to = 2}), IsOk()) << log_.text;
  EXPECT_FALSE(node(2).fenced) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("c is a copy, and no longer fenced because of its disk"));
  ExpectHealthy("replaced");
  ASSERT_THAT(Run(Command::kReparent, {.to = 2}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 2u);
}

TEST_F(ProcedureTest, ReplaceKeepsAFenceWhileAFaultOfTheDiskCountsAndOneForAnotherReason) {
  node(2).fenced = true;
  node(2).fence_reason = "disk: write_error nvme0n1";
  node(2).disk_condemned = true;
  ASSERT_THAT(Run(Command::kReplace, {.to = 2}), IsOk()) << log_.text;
  EXPECT_TRUE(node(2).fenced);
  EXPECT_THAT(log_.text, HasSubstr("c is a copy and stays fenced: write_error nvme0n1"));
  node(2).disk_condemned = false;
  node(2).fence_reason = "maintenance";
  ASSERT_THAT(Run(Command::kReplace, {.to = 2}), IsOk()) << log_.text;
  EXPECT_TRUE(node(2).fenced) << "somebody else's";
}

}  // namespace
}  // namespace metal::shard
