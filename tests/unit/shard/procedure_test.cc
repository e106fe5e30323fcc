#include "tools/metalctl/shard/procedure.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/shard/fake_shard.h"
#include "tools/metalctl/shard/findings.h"

namespace metal::shard {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::Not;
using testing::StatusIs;

class QuietLog : public StepLog {
 public:
  void Begin(std::string_view, std::string_view) override {}
  void End(const StepRecord& step) override {
    text += step.name + " " + step.nodes + ": " + (step.error.empty() ? step.result : step.error) +
            "\n";
  }
  void Note(std::string_view note) override { text += std::string(note) + "\n"; }
  std::string text;
};

enum class Command { kReparent, kFailover, kRecover, kInit, kReplace };

class ProcedureTest : public ::testing::Test {
 protected:
  ProcedureTest() : shard_(std::make_unique<FakeShard>(ThreeNodes())) {}

  absl::Status Run(Command command, const ChangeOptions& options = {}) {
    static int runs = 0;
    Procedure procedure(shard_->config(), *shard_, log_, fmt::format("run{}", ++runs));
    switch (command) {
      case Command::kReparent:
        return procedure.Reparent(options);
      case Command::kFailover:
        return procedure.Failover(options);
      case Command::kRecover:
        return procedure.Recover();
      case Command::kInit:
        return procedure.Init({});
      case Command::kReplace:
        return procedure.Replace(options.to.value_or(0), false);
    }
    return absl::OkStatus();
  }
  FakeNode& node(size_t i) { return shard_->at(i); }
  std::optional<size_t> Primary() { return FindPrimary(shard_->Views()); }
  // Everything that was ever acknowledged is on the one primary, and nothing is wrong.
  void ExpectHealthy(const std::string& where) {
    const auto primary = Primary();
    ASSERT_TRUE(primary.has_value()) << where << "\n" << log_.text;
    EXPECT_EQ(shard_->Lost(*primary), 0) << where << "\n" << log_.text;
    EXPECT_FALSE(shard_->two_primaries()) << where << "\n" << log_.text;
    EXPECT_THAT(shard_->Findings(), IsEmpty()) << where << "\n" << log_.text;
    EXPECT_GT(shard_->acknowledged(), 0u);
  }

  std::unique_ptr<FakeShard> shard_;
  QuietLog log_;
};

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
  node(2).reachable = false;
  refused("its agent does not answer");
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

TEST_F(ProcedureTest, ADoorThatCannotBeHeldStopsAReparentBeforeItBegins) {
  node(1).door_refuses = true;
  EXPECT_THAT(Run(Command::kReparent, {.to = 2}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nothing was changed")));
  EXPECT_TRUE(node(0).read_write);
  EXPECT_EQ(node(0).stored.term, 4u);
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  ExpectHealthy("doors are open");
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

void Empty(FakeShard& shard) {
  shard.ForgetAcknowledged();
  for (size_t i = 0; i < shard.size(); ++i) {
    FakeNode& node = shard.at(i);
    node.empty = true;
    node.server_up = node.read_write = false;
    node.stored = {};
    node.wanted = NodeRole::kStandby;
    node.slots.clear();
    node.synchronous = "";
    node.source.reset();
  }
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
  ExpectHealthy("replaced");
  EXPECT_THAT(Run(Command::kReplace, {.to = 0}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("it is the primary")));
  node(1).source.reset();
  EXPECT_THAT(Run(Command::kReplace, {.to = 2}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("commits wait")));
}

TEST_F(ProcedureTest, RecoverClonesANodeWithoutData) {
  node(2).empty = true;
  node(2).server_up = false;
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  ExpectHealthy("cloned");
}

// a failed, and comes back after another node was promoted, with WAL of its own.
void LetAReturnDiverged(FakeShard& shard) {
  QuietLog log;
  shard.at(0).reachable = shard.at(0).server_up = false;
  Procedure procedure(shard.config(), shard, log, "failover");
  ASSERT_THAT(procedure.Failover({}), IsOk()) << log.text;
  shard.Revive();
  shard.at(0).reachable = shard.at(0).server_up = true;
  shard.Tick();
}

TEST_F(ProcedureTest, RecoverClonesANodeThatCannotBeRewound) {
  LetAReturnDiverged(*shard_);
  node(0).refuses_rewind = "WAL_MISSING";
  ASSERT_THAT(Run(Command::kRecover), IsOk()) << log_.text;
  EXPECT_THAT(log_.text, HasSubstr("a cannot be rewound"));
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
  EXPECT_THAT(log_.text, ::testing::Not(HasSubstr("clone a")));
}

// Kills the operator at every call of the command, in every way, and runs it again.
void KillEverywhere(Command command, const ChangeOptions& options, Command again,
                    const std::function<void(FakeShard&)>& harm, const std::set<size_t>& absent) {
  for (const Death death : {Death::kBefore, Death::kAfter, Death::kHalfway}) {
    for (int call = 1;; ++call) {
      FakeShard shard(ThreeNodes());
      for (int i = 0; i < 3; ++i) shard.Tick();
      harm(shard);
      QuietLog log;
      shard.KillAt(call, death);
      const auto run = [&](Command which, const std::string& name) {
        Procedure procedure(shard.config(), shard, log, name);
        if (which == Command::kReparent) return procedure.Reparent(options);
        if (which == Command::kFailover) return procedure.Failover(options);
        if (which == Command::kInit) return procedure.Init({});
        if (which == Command::kReplace) return procedure.Replace(*options.to, true);
        return procedure.Recover();
      };
      const absl::Status first = run(command, "first");
      const bool died = shard.dead();
      shard.Revive();
      log.text += "--- again\n";
      const absl::Status second = run(again, "second");
      const std::string where =
          fmt::format("killed at call {} ({})\n{}", call, static_cast<int>(death), log.text);
      ASSERT_THAT(second, IsOk()) << where;
      const auto primary = FindPrimary(shard.Views());
      ASSERT_TRUE(primary.has_value()) << where;
      ASSERT_EQ(shard.Lost(*primary), 0) << where;
      ASSERT_FALSE(shard.two_primaries()) << where;
      for (const std::string& finding : shard.Findings()) {
        const bool expected = std::any_of(absent.begin(), absent.end(), [&](size_t i) {
          return finding.ends_with(std::string(" ") + static_cast<char>('a' + i));
        });
        ASSERT_TRUE(expected) << finding << "\n" << where;
      }
      if (!died) break;
      ASSERT_LT(call, 500);
    }
  }
}

TEST(KilledOperatorTest, ReparentIsFinishedByReparent) {
  KillEverywhere(Command::kReparent, {.to = 2}, Command::kReparent, [](FakeShard&) {}, {});
}

TEST(KilledOperatorTest, ReparentIsFinishedOrUndoneByRecover) {
  KillEverywhere(Command::kReparent, {.to = 2}, Command::kRecover, [](FakeShard&) {}, {});
}

TEST(KilledOperatorTest, ReparentWithACandidateThatRefusesIsRecovered) {
  KillEverywhere(Command::kReparent, {.to = 2}, Command::kRecover,
                 [](FakeShard& shard) { shard.at(2).refuses_promotion = true; }, {});
}

TEST(KilledOperatorTest, FailoverIsFinishedByFailoverOrRecover) {
  const auto lose_primary = [](FakeShard& shard) {
    shard.at(0).reachable = shard.at(0).server_up = false;
  };
  KillEverywhere(Command::kFailover, {}, Command::kRecover, lose_primary, {0});
  KillEverywhere(Command::kFailover, {}, Command::kFailover, lose_primary, {0});
  KillEverywhere(Command::kFailover, {.to = 2}, Command::kFailover, lose_primary, {0});
}

TEST(KilledOperatorTest, FailoverOfALivePrimaryIsFinishedByRecover) {
  KillEverywhere(Command::kFailover, {.to = 2}, Command::kRecover, [](FakeShard&) {}, {});
}

TEST(KilledOperatorTest, InitIsFinishedByInit) {
  KillEverywhere(Command::kInit, {}, Command::kInit, Empty, {});
}

TEST(KilledOperatorTest, ReplaceIsFinishedByRecover) {
  KillEverywhere(Command::kReplace, {.to = 2}, Command::kRecover, [](FakeShard&) {}, {});
}

TEST(KilledOperatorTest, RecoverOfADivergedPrimaryIsFinishedByRecover) {
  KillEverywhere(Command::kRecover, {}, Command::kRecover, LetAReturnDiverged, {});
}

TEST(KilledOperatorTest, RecoverThatClonesInsteadIsFinishedByRecover) {
  KillEverywhere(Command::kRecover, {}, Command::kRecover,
                 [](FakeShard& shard) {
                   LetAReturnDiverged(shard);
                   shard.at(0).refuses_rewind = "REWIND_REFUSED";
                 },
                 {});
}

TEST(KilledOperatorTest, RecoverIsFinishedByRecover) {
  KillEverywhere(Command::kRecover, {}, Command::kRecover,
                 [](FakeShard& shard) {
                   shard.at(1).source.reset();
                   shard.at(2).server_up = false;
                   shard.at(0).synchronous = "";
                   shard.at(0).slots.clear();
                 },
                 {});
}

}  // namespace
}  // namespace metal::shard
