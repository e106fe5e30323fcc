#include "tests/unit/shard/procedure_fixture.h"

namespace metal::shard {
namespace {

using testing::IsOk;

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

TEST(KilledOperatorTest, ElectionAboveTermsOfTheDatabaseIsFinishedByRecover) {
  KillEverywhere(Command::kRecover, {}, Command::kRecover,
                 [](FakeShard& shard) {
                   for (size_t i = 0; i < shard.size(); ++i) {
                     shard.at(i).wal.terms.push_back({9, 3, {0x3000}, "a"});
                     shard.at(i).server_up = false;
                     shard.at(i).wanted = NodeRole::kStandby;
                   }
                 },
                 {});
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

TEST(KilledOperatorTest, RecoverThatClonesAfterMissedWalIsFinishedByRecover) {
  KillEverywhere(Command::kRecover, {}, Command::kRecover,
                 [](FakeShard& shard) { shard.at(2).missed_wal = true; }, {});
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
