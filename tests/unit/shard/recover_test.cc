#include "tests/unit/shard/procedure_fixture.h"

namespace metal::shard {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;

TEST_F(ProcedureTest, RecoverElectsNobodyWhileThePrimaryStarts) {
  const uint64_t term = node(0).stored.term;
  shard_->Tick();
  node(0).starts_for = 20;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), 0u);
  EXPECT_EQ(node(0).stored.term, term);
  ExpectHealthy("it has started");
}

TEST_F(ProcedureTest, RecoverMakesAnOldPrimaryFollow) {
  shard_->Tick();
  node(0).reachable = node(0).server_up = false;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  node(0).reachable = true;  // it wrote nothing more before it was cut off
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  ExpectHealthy("recovered");
}

TEST_F(ProcedureTest, RecoverLooksAgainWhenADeadOperatorsDemotionIsTakenUpMeanwhile) {
  node(0).before_slots = [&] {
    ASSERT_THAT(node(0).Demote({5, node(0).stored.orchestrator}), IsOk());
  };
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("looking again"));
  ExpectHealthy("recovered");
}

TEST_F(ProcedureTest, ANodeWithWalOfItsOwnIsRewound) {
  node(0).reachable = node(0).server_up = false;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  node(0).reachable = node(0).server_up = true;  // it still believes its order, and writes
  shard_->Tick();
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("rejoin a: rewound, follows b"));
  ExpectHealthy("rewound");
}

TEST_F(ProcedureTest, ANodeThatWasToldToFollowBeforeItsWalWasKnownIsRewoundInTheSameRun) {
  LetAReturnDiverged(*shard_);
  node(0).unchecked_follows = 1;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("rejoin a: rewound, follows"));
  ExpectHealthy("rewound");
}

TEST_F(ProcedureTest, RecoverClonesANodeWithoutData) {
  node(2).empty = true;
  node(2).server_up = false;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  ExpectHealthy("cloned");
}

TEST_F(ProcedureTest, NoCopyIsTakenFromAStandbyWhoseReplayIsPaused) {
  node(1).replay_paused = true;
  node(2).empty = true;
  node(2).server_up = false;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("rejoin c: cloned, follows a"));
}

TEST_F(ProcedureTest, RecoverClonesANodeThatCannotBeRewound) {
  LetAReturnDiverged(*shard_);
  node(0).refuses_rewind = "WAL_MISSING";
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("a cannot follow as it is"));
  EXPECT_THAT(log_.text, HasSubstr("clone a: cloned, follows"));
  ExpectHealthy("cloned instead");
}

TEST_F(ProcedureTest, RecoverKeepsADirectoryUntilTheOtherStandbyHasAllThatThePrimaryHas) {
  LetAReturnDiverged(*shard_);
  const size_t third = Primary() == 1 ? 2 : 1;
  node(0).refuses_rewind = "WAL_MISSING";
  node(third).lags = true;
  (void)Run(Command::kRecover);
  EXPECT_THAT(log_.text, HasSubstr("0 other standbys have all that the primary has"));
  EXPECT_THAT(log_.text, Not(HasSubstr("clone a")));
}

TEST_F(ProcedureTest, RecoverKeepsTheDirectoryOfANodeThatOnlyCannotStart) {
  node(2).server_up = false;
  node(2).disk_full = true;
  (void)Run(Command::kRecover);
  EXPECT_THAT(log_.text, Not(HasSubstr("clone")));
  EXPECT_THAT(log_.text, HasSubstr("c is left behind: rejoin on c: the disk is full"));
}

TEST_F(ProcedureTest, RecoverKeepsADirectoryThatMayBeTheLastCopyBesideThePrimary) {
  LetAReturnDiverged(*shard_);
  const size_t third = Primary() == 1 ? 2 : 1;
  node(third).reachable = node(third).server_up = false;
  const WalPosition before = node(0).wal;
  for (const char* reason : {"REWIND_REFUSED", "HISTORY_DIVERGED", "DIVERGED"}) {
    node(0).refuses_rewind = reason;
    (void)Run(Command::kRecover);
    EXPECT_EQ(node(0).wal.timeline, before.timeline) << reason << log_.text;
  }
  EXPECT_THAT(log_.text, HasSubstr("shard replace a --force"));
  // Half rewound it is no copy of anything.
  node(0).refuses_rewind = "DATA_DIRECTORY_INCOMPLETE";
  (void)Run(Command::kRecover);
  EXPECT_THAT(log_.text, HasSubstr("clone a: cloned, follows"));
}

TEST_F(ProcedureTest, RecoverNeverGivesUpWalOfThePrimarysOwnTimeline) {
  LetAReturnDiverged(*shard_);
  node(0).refuses_rewind = "DIVERGED";
  (void)Run(Command::kRecover);
  EXPECT_THAT(log_.text, HasSubstr("a is left behind"));
  EXPECT_THAT(log_.text, Not(HasSubstr("clone a")));
}

TEST_F(ProcedureTest, RecoverClonesAStandbyWhosePrimaryRemovedWalThatItMissed) {
  node(2).missed_wal = true;
  shard_->Tick();
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("c cannot follow as it is: rejoin on c: WAL is gone"));
  EXPECT_THAT(log_.text, HasSubstr("clone c: cloned, follows a"));
  ExpectHealthy("cloned");
}

TEST_F(ProcedureTest, AReceiverThatSaysThatItStreamsIsNotBelievedBeforeItGetsSomething) {
  node(2).missed_wal = node(2).flickers = true;
  shard_->Tick();
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("clone c: cloned, follows a"));
  ExpectHealthy("cloned");
}

TEST_F(ProcedureTest, RecoverDoesNotTakeSilenceForMissedWal) {
  node(2).cut_off = true;
  shard_->Tick();
  const WalPosition before = node(2).wal;
  (void)Run(Command::kRecover);
  EXPECT_THAT(log_.text, HasSubstr("c is left behind: rejoin on c: it was told to follow a"));
  EXPECT_THAT(log_.text, Not(HasSubstr("clone c")));
  EXPECT_EQ(node(2).wal.received, before.received);
}

TEST_F(ProcedureTest, RecoverKeepsAStandbyThatMissedWalWhileThePrimaryIsTheOnlyOtherCopy) {
  for (const bool lags : {true, false}) {
    node(2).missed_wal = true;
    node(1).lags = lags;
    node(1).reachable = node(1).server_up = lags;
    (void)Run(Command::kRecover);
    EXPECT_THAT(log_.text, HasSubstr("0 other standbys have all that the primary has"));
    EXPECT_THAT(log_.text, HasSubstr("metalctl shard replace c --force"));
    EXPECT_THAT(log_.text, Not(HasSubstr("clone c")));
    EXPECT_TRUE(node(2).missed_wal);
    log_.text.clear();
  }
}

TEST_F(ProcedureTest, RecoverSaysHowANodeComesOutOfTheFenceBecauseOfItsDisk) {
  node(2).fenced = true;
  node(2).fence_reason = "disk: write_error nvme0n1";
  node(2).server_up = false;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_FALSE(node(2).server_up) << "what it had acknowledged may be lost";
  EXPECT_THAT(log_.text, HasSubstr("metalctl shard replace c once its drive is changed"));
  node(2).server_up = true;  // its drive was changed, and it was cloned by hand
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_TRUE(node(2).fenced);
  EXPECT_THAT(log_.text, HasSubstr("c follows and stays fenced"));
  EXPECT_THAT(log_.text, HasSubstr("metalctl unfence --term 4"));
  node(2).empty = true;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_FALSE(node(2).fenced) << "cloned on a drive that is well";
  ExpectHealthy("rebuilt");
}

// The first one fenced itself and is down; the second could not without leaving the shard nobody.
TEST_F(ProcedureTest, ASecondPrimaryWithASickDiskIsLeftForTheThirdNode) {
  node(0).fenced = true;
  node(0).fence_reason = "disk: write_error nvme0n1";
  node(0).server_up = false;
  node(0).wanted = NodeRole::kStandby;
  ASSERT_THAT(Run(Command::kFailover), IsOk()) << log_.text;
  const auto second = Primary();
  ASSERT_TRUE(second) << log_.text;
  ASSERT_NE(*second, 0u);
  node(*second).disk_condemned = true;
  const size_t third = 3 - *second;
  ASSERT_THAT(Run(Command::kFailover, {.to = third}), IsOk()) << log_.text;
  EXPECT_EQ(Primary(), third) << log_.text;
  EXPECT_EQ(shard_->Lost(third), 0) << log_.text;
  EXPECT_FALSE(shard_->two_primaries());
}

}  // namespace
}  // namespace metal::shard
