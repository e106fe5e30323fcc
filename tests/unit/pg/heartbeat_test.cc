#include "agent/pg/heartbeat.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::metal::testing::MakeResult;

// The tables as the statements of metal_schema.cc leave them.
struct Tables {
  bool present = false, foreign = false;
  std::vector<std::string> terms, beats;
};

class HeartbeatTest : public ::testing::Test {
 protected:
  HeartbeatTest() {
    Show(observe::Role::kPrimary);
    server_.On("to_regclass", [this](const auto&) {
      const bool present = tables_.present || tables_.foreign;
      return MakeResult(
          {{{"present", present ? "t" : "f"},
            {"mark",
             tables_.foreign ? "mine" : "metal-agent: terms and heartbeat of this cluster (1)"},
            {"whole", tables_.present ? "t" : "f"}}});
    });
    for (const char* words : {"BEGIN", "COMMENT ON", "REVOKE", "GRANT", "CREATE TABLE", "ROLLBACK"})
      server_.On(words, [](const auto&) { return SqlResult{}; });
    server_.On("CREATE SCHEMA", [this](const auto&) {
      creating_ = true;
      return SqlResult{};
    });
    server_.On("COMMIT", [this](const auto&) {
      tables_.present = creating_;
      return SqlResult{};
    });
    server_.On("INSERT INTO metal.term_history", [this](const auto& parameters) {
      const std::string term = *parameters[0];
      if (std::find(tables_.terms.begin(), tables_.terms.end(), term) == tables_.terms.end())
        tables_.terms.push_back(term);
      return SqlResult{};
    });
    server_.On("INSERT INTO metal.heartbeat", [this](const auto& parameters) {
      tables_.beats.push_back(*parameters[0]);
      return SqlResult{};
    });
  }
  void Show(observe::Role role) {
    board_.Update([role](observe::NodeStatus& status) {
      status.postgres.state = observe::PostgresState::kRunning;
      status.postgres.role_observed = role;
    });
  }
  // As the monitor does, once a second.
  void Rounds(int count) {
    for (int i = 0; i < count; ++i) {
      writer_.RunOnce();
      clock_.Advance(absl::Seconds(1));
    }
  }
  HeartbeatOptions Options(absl::Duration interval) {
    HeartbeatOptions options;
    options.interval = interval;
    options.order = [this] { return order_; };
    return options;
  }
  bool faulty() { return board_.Get()->faults.contains("metal_schema/postgres"); }

  testing::SimulatedClock clock_;
  testing::FakePostgres server_{clock_};
  observe::StatusBoard board_{clock_};
  Tables tables_;
  bool creating_ = false;
  std::optional<TermOrder> order_ = TermOrder{3, "a", "o"};
  HeartbeatWriter writer_{Options(absl::Seconds(1)), server_.factory(), board_, clock_};
};

TEST_F(HeartbeatTest, APrimaryMakesTheSchemaWritesItsTermOnceAndBeats) {
  Rounds(5);
  EXPECT_TRUE(tables_.present);
  EXPECT_THAT(tables_.terms, ::testing::ElementsAre("3"));
  EXPECT_EQ(tables_.beats.size(), 5u);
  EXPECT_EQ(server_.connects(), 1);
  EXPECT_FALSE(faulty());
  order_->term = 4;
  Rounds(1);
  EXPECT_THAT(tables_.terms, ::testing::ElementsAre("3", "4"));
}

TEST_F(HeartbeatTest, TheRecordIsKeptExceptWhileAnActionChangesIt) {
  std::string setting, rules;
  int looks = 0, told = 0;
  server_.On("current_setting", [&](const auto&) {
    ++looks;
    return MakeResult({{{"names", setting}}});
  });
  server_.On("to_regclass", [](const auto&) {
    return MakeResult({{{"present", "t"},
                        {"mark", "metal-agent: terms and heartbeat of this cluster (1)"},
                        {"whole", "t"},
                        {"durability", "t"}}});
  });
  server_.On("FROM metal.durability", [&](const auto&) {
    return rules.empty() ? SqlResult{} : MakeResult({{{"rules", rules}, {"cluster_id", "orders"}}});
  });
  server_.On("INSERT INTO metal.durability", [&](const auto& parameters) {
    rules = *parameters[0];
    return SqlResult{};
  });
  RecordTurn turn;
  HeartbeatOptions options = Options(absl::ZeroDuration());
  options.cluster_id = "orders";
  options.turn = &turn;
  options.found_weaker = [&](const RecordState&) { ++told; };
  HeartbeatWriter writer(std::move(options), server_.factory(), board_, clock_);
  const auto publish = [&](const std::string& value) {
    setting = value;
    board_.Update(
        [&](observe::NodeStatus& status) { status.postgres.synchronous_standby_names = value; });
  };
  publish("ANY 1 (b, c)");
  turn.mutex.Lock();
  writer.RunOnce();
  EXPECT_EQ(rules, "");
  turn.mutex.Unlock();
  for (int i = 0; i < 5; ++i) writer.RunOnce();
  EXPECT_EQ(rules, "ANY 2 (\"a\", \"b\", \"c\")\n");
  EXPECT_EQ(looks, 1) << "what is settled is not asked again";
  ++turn.changes;
  writer.RunOnce();
  EXPECT_EQ(looks, 2);
  publish("");
  for (int i = 0; i < 3; ++i) writer.RunOnce();
  EXPECT_EQ(rules, "ANY 2 (\"a\", \"b\", \"c\")\nANY 1 (\"a\")\n");
  EXPECT_EQ(told, 1);
}

TEST_F(HeartbeatTest, NobodyElseWrites) {
  Show(observe::Role::kStandby);
  Rounds(2);
  Show(observe::Role::kPrimary);
  order_.reset();  // read-write without an order
  Rounds(2);
  EXPECT_EQ(server_.connects(), 0);
}

TEST_F(HeartbeatTest, ALongerIntervalIsKept) {
  HeartbeatWriter writer(Options(absl::Seconds(5)), server_.factory(), board_, clock_);
  for (int i = 0; i < 21; ++i) {
    writer.RunOnce();
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_EQ(tables_.beats.size(), 5u);
}

TEST_F(HeartbeatTest, OffMeansTermsWithoutBeats) {
  HeartbeatWriter writer(Options(absl::ZeroDuration()), server_.factory(), board_, clock_);
  for (int i = 0; i < 5; ++i) writer.RunOnce();
  EXPECT_THAT(tables_.terms, ::testing::ElementsAre("3"));
  EXPECT_TRUE(tables_.beats.empty());
  EXPECT_EQ(server_.connects(), 1);
}

TEST_F(HeartbeatTest, AForeignSchemaIsLeftAloneAndReported) {
  tables_.foreign = true;
  Rounds(40);
  EXPECT_TRUE(tables_.terms.empty() && tables_.beats.empty());
  EXPECT_TRUE(faulty());
  EXPECT_LE(server_.connects(), 2) << "it does not ask every second";
  for (const std::string& statement : server_.statements()) {
    EXPECT_FALSE(statement.starts_with("CREATE") || statement.starts_with("COMMENT")) << statement;
  }
  tables_.foreign = false;
  Rounds(40);
  EXPECT_FALSE(tables_.beats.empty());
  EXPECT_FALSE(faulty());
}

TEST_F(HeartbeatTest, EachStatementMayFailOnceAndTheNextRoundsMakeItGood) {
  for (int nth = 1; nth <= 14; ++nth) {
    tables_ = {};
    creating_ = false;
    HeartbeatWriter writer(Options(absl::Seconds(1)), server_.factory(), board_, clock_);
    server_.FailStatement(nth, absl::ResourceExhaustedError("disk full"), nth % 2 == 0);
    for (int i = 0; i < 4; ++i) {
      writer.RunOnce();
      clock_.Advance(absl::Seconds(1));
    }
    EXPECT_TRUE(tables_.present) << nth;
    EXPECT_THAT(tables_.terms, ::testing::ElementsAre("3")) << nth;
    EXPECT_GE(tables_.beats.size(), 1u) << nth;
    EXPECT_FALSE(faulty()) << nth;
  }
}

TEST_F(HeartbeatTest, TheThreadWorksWhenItIsNudgedAndStopsAtOnce) {
  writer_.Start();
  writer_.Nudge();
  const base::MonotonicTime limit = base::RealClock().Monotonic() + absl::Seconds(20);
  while (server_.connects() == 0 && base::RealClock().Monotonic() < limit) {
    base::RealClock().Sleep(absl::Milliseconds(1));
  }
  EXPECT_EQ(server_.connects(), 1);
  writer_.Stop();
}

}  // namespace
}  // namespace metal::pg
