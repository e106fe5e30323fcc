#include "agent/pg/monitor.h"

#include <unistd.h>

#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::metal::testing::FakeServerState;
using ::metal::testing::SqlRow;
using observe::PostgresState;
using ::testing::HasSubstr;

class MonitorTest : public ::testing::Test {
 protected:
  MonitorTest() { SetState(PostgresState::kRunning); }
  // What the supervisor publishes.
  void SetState(PostgresState state) {
    board_.Update([state](observe::NodeStatus& status) {
      status.postgres.state = state;
      status.postgres.pid = getpid();
    });
  }
  void Rounds(int count) {
    for (int i = 0; i < count; ++i) {
      monitor_.RunOnce();
      clock_.Advance(absl::Seconds(1));
    }
  }
  std::string Seconds(absl::Time time) {
    return fmt::format("{:.3f}", absl::ToDoubleSeconds(time - absl::UnixEpoch()));
  }
  void Receive(const char* lsn, absl::Time last_message) {
    server_.Change([&](FakeServerState& state) {
      state.in_recovery = true;
      state.received = state.replayed = *base::Lsn::Parse("0/5000000");
      state.receiver = SqlRow{{"pid", "9"},
                              {"status", "streaming"},
                              {"sender_host", "10.0.0.1"},
                              {"sender_port", "5432"},
                              {"written_lsn", "0/5000000"},
                              {"flushed_lsn", "0/5000000"},
                              {"latest_end_lsn", lsn},
                              {"received_tli", "1"},
                              {"last_message", Seconds(last_message)}};
    });
  }
  observe::PostgresSection postgres() { return board_.Get()->postgres; }
  observe::StandbySection standby() { return board_.Get()->standby; }

  testing::SimulatedClock clock_;
  testing::FakePostgres server_{clock_};
  observe::StatusBoard board_{clock_};
  PgMonitor monitor_{{}, server_.factory(), board_, clock_};
};

TEST_F(MonitorTest, APrimarysSectionsArePublishedWithTheirTime) {
  server_.Change([](FakeServerState& state) {
    state.ready_segments = 2;
    state.followers = {{{"pid", "5"},
                        {"application_name", "b"},
                        {"state", "streaming"},
                        {"replay_lsn", "0/3000000"}}};
  });
  const absl::Time now = clock_.Now();
  Rounds(1);
  EXPECT_EQ(postgres().role_observed, observe::Role::kPrimary);
  EXPECT_EQ(postgres().current_lsn.ToString(), "0/3000060");
  EXPECT_EQ(postgres().version, "15.20");
  EXPECT_EQ(postgres().time.captured_at, now);
  EXPECT_FALSE(standby().present);
  ASSERT_EQ(board_.Get()->followers.followers.size(), 1u);
  EXPECT_EQ(board_.Get()->followers.followers[0].lag_bytes, 0x60u);
  EXPECT_EQ(board_.Get()->archive.ready_segments, 2u);
  EXPECT_EQ(board_.Get()->archive.time.captured_at, now);
}

TEST_F(MonitorTest, WhatAStandbyDidNotArchiveAsAPrimaryIsNoErrorOfIts) {
  PgMonitor monitor({.archive_error = [] { return "no space"; }}, server_.factory(), board_,
                    clock_);
  monitor.RunOnce();
  EXPECT_EQ(board_.Get()->archive.last_error, "no space");
  server_.Change([](FakeServerState& state) { state.in_recovery = true; });
  PgMonitor on_standby({.archive_error = [] { return "no space"; }}, server_.factory(), board_,
                       clock_);
  on_standby.RunOnce();
  EXPECT_EQ(board_.Get()->archive.last_error, "");
}

TEST_F(MonitorTest, OneSessionServesManyRounds) {
  Rounds(30);
  EXPECT_EQ(server_.connects(), 1);
}

TEST_F(MonitorTest, ANewOrDroppedTablespaceIsTold) {
  int told = 0;
  PgMonitor monitor({.tablespaces_changed = [&] { ++told; }}, server_.factory(), board_, clock_);
  const auto set_tablespaces = [&](const char* oids) {
    server_.Change([&](FakeServerState& state) { state.tablespace_oids = oids; });
  };
  for (int i = 0; i < 3; ++i) monitor.RunOnce();
  EXPECT_EQ(told, 1);  // known for the first time
  set_tablespaces("1663,1664,16385");
  for (int i = 0; i < 3; ++i) monitor.RunOnce();
  EXPECT_EQ(told, 2);
  set_tablespaces("1663,1664");
  for (int i = 0; i < 3; ++i) monitor.RunOnce();
  EXPECT_EQ(told, 3);
}

TEST_F(MonitorTest, AHungServerIsUnresponsiveAndComesBack) {
  Rounds(1);
  const absl::Time good = postgres().time.captured_at;
  server_.set_hung(true);
  Rounds(1);
  EXPECT_EQ(postgres().state, PostgresState::kRunning);  // one miss is no verdict
  Rounds(3);
  EXPECT_EQ(postgres().state, PostgresState::kUnresponsive);
  EXPECT_EQ(postgres().time.captured_at, good);  // a reader sees how old it is
  EXPECT_THAT(postgres().state_reason, HasSubstr("did not answer"));
  server_.set_hung(false);
  Rounds(1);
  EXPECT_EQ(postgres().state, PostgresState::kRunning);
  EXPECT_EQ(postgres().state_reason, "");
}

TEST_F(MonitorTest, AServerThatDoesNotRunIsNotConnectedTo) {
  for (const PostgresState state :
       {PostgresState::kStopped, PostgresState::kStarting, PostgresState::kCrashed,
        PostgresState::kQuarantined, PostgresState::kNoDataDirectory}) {
    SetState(state);
    Rounds(2);
    EXPECT_EQ(postgres().state, state);
  }
  EXPECT_EQ(server_.connects(), 0);
}

TEST_F(MonitorTest, ANewServerGetsANewSession) {
  Rounds(2);
  server_.set_down(true);
  Rounds(1);
  server_.set_down(false);
  Rounds(1);
  EXPECT_EQ(postgres().state, PostgresState::kRunning);
  EXPECT_EQ(server_.connects(), 2);
}

TEST_F(MonitorTest, AnyFailedStatementCostsARoundAndNoMore) {
  for (int at = 1; at <= 8; ++at) {
    server_.FailStatement(at, absl::InternalError("postgres: odd"));
    Rounds(4);
    EXPECT_EQ(postgres().state, PostgresState::kRunning) << at;
  }
}

TEST_F(MonitorTest, AStandbyOnAnIdlePrimaryHasNoLagForHours) {
  for (int hour = 0; hour < 3; ++hour) {
    Receive("0/5000000", clock_.Now() - absl::Seconds(20));
    Rounds(1);
    EXPECT_TRUE(standby().present);
    EXPECT_EQ(standby().lag_source, "caught_up");
    EXPECT_EQ(standby().lag_seconds, absl::ZeroDuration());
    EXPECT_EQ(standby().sender_host, "10.0.0.1");
    clock_.Advance(absl::Hours(1));
  }
}

TEST_F(MonitorTest, AfterTheReceiverIsGoneTheLagGrowsFromItsLastMessage) {
  Receive("0/5000000", clock_.Now());
  Rounds(1);
  server_.Change([](FakeServerState& state) { state.receiver.reset(); });
  clock_.Advance(absl::Seconds(99));
  Rounds(1);
  EXPECT_EQ(standby().lag_source, "link_dead");
  EXPECT_EQ(standby().receiver_state, "");
  ASSERT_TRUE(standby().lag_seconds.has_value());
  EXPECT_NEAR(absl::ToDoubleSeconds(*standby().lag_seconds), 100, 1);
  EXPECT_EQ(standby().lag_bytes, std::nullopt);
}

TEST_F(MonitorTest, LagAfterIdlenessCountsFromTheLastTimeItWasCaughtUp) {
  Receive("0/5000000", clock_.Now());
  Rounds(1);
  Receive("0/6000000", clock_.Now());
  Rounds(1);
  EXPECT_EQ(standby().lag_source, "replay_timestamp");
  EXPECT_EQ(standby().lag_bytes, 0x1000000u);
  EXPECT_LT(*standby().lag_seconds, absl::Seconds(3));
}

TEST_F(MonitorTest, WhatIsReplayedAMomentLaterIsNoLag) {
  Receive("0/5000000", clock_.Now());
  Rounds(2);
  Receive("0/5000100", clock_.Now());  // a heartbeat has just arrived
  int looks = 0;
  server_.On("server_version_num", [&](const auto&) {
    server_.Change([&](FakeServerState& state) {
      if (++looks == 3) state.replayed = *base::Lsn::Parse("0/5000100");
    });
    return server_.StateNow();
  });
  Rounds(1);
  EXPECT_EQ(standby().lag_source, "caught_up");
  EXPECT_EQ(standby().lag_seconds, absl::ZeroDuration());
  EXPECT_EQ(standby().lag_bytes, 0u);
  EXPECT_EQ(looks, 3);
}

// A server with two terms and a heartbeat.
void KeepTerms(testing::FakePostgres& server) {
  server.On("to_regclass", [](const auto&) {
    return testing::MakeResult({{{"present", "t"},
                                 {"mark", "metal-agent: terms and heartbeat of this cluster (1)"},
                                 {"whole", "t"}}});
  });
  server.On("FROM metal.term_history", [](const auto&) {
    const auto row = [](const char* term, const char* node) {
      return SqlRow{{"term", term},
                    {"timeline", "2"},
                    {"start_lsn", "0/3000000"},
                    {"at_us", "1800000000123456"},
                    {"node_id", node},
                    {"orchestrator_id", "o"}};
    };
    return testing::MakeResult({row("18446744073709551615", "b"), row("7", "a")});
  });
  server.On("FROM metal.heartbeat", [](const auto&) {
    return testing::MakeResult(
        {{{"term", "7"}, {"node_id", "a"}, {"at", "1800000000.5"}, {"lsn", "0/4000000"}}});
  });
}

TEST_F(MonitorTest, TermsAndTheHeartbeatAreShown) {
  Receive("0/5000000", clock_.Now());
  KeepTerms(server_);
  Rounds(1);
  const auto entries = board_.Get()->term_history.entries;
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].term, 7u);
  EXPECT_EQ(entries[0].time, absl::FromUnixMicros(1800000000123456));
  EXPECT_EQ(entries[1].term, ~uint64_t{0});
  ASSERT_TRUE(standby().heartbeat.has_value());
  EXPECT_EQ(standby().heartbeat->node_id, "a");
}

TEST_F(MonitorTest, TermsThatWereForgottenAreNotShownAgainUntilTheServerSaysThem) {
  Receive("0/5000000", clock_.Now());
  KeepTerms(server_);
  Rounds(1);
  ASSERT_EQ(board_.Get()->term_history.entries.size(), 2u);
  // The server is stopped, its directory becomes another one, a server is started there.
  SetState(PostgresState::kStopped);
  board_.Update([](observe::NodeStatus& status) { status.term_history = {}; });
  Rounds(1);
  server_.set_down(true);
  server_.set_down(false);
  server_.On("to_regclass", [](const auto&) -> absl::StatusOr<pg::SqlResult> {
    return absl::InternalError("a table is locked");
  });
  SetState(PostgresState::kRunning);
  Rounds(3);
  EXPECT_TRUE(standby().present);
  EXPECT_TRUE(board_.Get()->term_history.entries.empty()) << "they were the old directory's";
}

TEST_F(MonitorTest, WhatAnEarlierServerSaidIsNotShownOfTheNext) {
  Receive("0/5000000", clock_.Now());
  KeepTerms(server_);
  server_.On("FROM metal.heartbeat", [&](const auto&) {
    // While the round runs the server ends, and another one comes up on another directory.
    board_.Update([](observe::NodeStatus& status) { status.postgres.pid = 1; });
    return pg::SqlResult();
  });
  Rounds(1);
  EXPECT_TRUE(board_.Get()->term_history.entries.empty());
  EXPECT_FALSE(standby().present);
}

TEST_F(MonitorTest, TheThreadStopsAtOnce) {
  PgMonitor monitor({}, server_.factory(), board_, clock_);
  monitor.Start();
  monitor.Stop();
}

TEST(FollowersSectionTest, SilenceIsMeasuredByThisServersClock) {
  const absl::Time start = absl::FromUnixSeconds(1000);
  ServerState state;
  state.current = base::Lsn{900};
  state.server_time = start;
  FollowerState follower;
  follower.pid = 7;
  follower.replay = base::Lsn{500};
  follower.replay_lag = absl::Seconds(1);
  follower.reply_time = start - absl::Hours(5);  // its own clock is wrong
  FollowerMemory memory;
  const auto lag = [&] {
    return MakeFollowersSection(state, {follower}, memory).followers[0].lag_seconds;
  };
  EXPECT_EQ(lag(), absl::Seconds(1));
  state.server_time = start + absl::Seconds(20);
  EXPECT_EQ(lag(), absl::Seconds(20)) << "no reply since";
  follower.reply_time += absl::Seconds(20);
  EXPECT_EQ(lag(), absl::Seconds(1)) << "it has replied";
  MakeFollowersSection(state, {}, memory);
  EXPECT_TRUE(memory.replies.empty());
}

}  // namespace
}  // namespace metal::pg
