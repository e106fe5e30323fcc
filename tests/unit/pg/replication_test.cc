#include "agent/pg/replication.h"

#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::metal::testing::FakeServerState;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

class ReplicationTest : public ::testing::Test {
 protected:
  std::unique_ptr<SqlSession> Session() { return *server_.Connect(); }

  testing::SimulatedClock clock_;
  testing::FakePostgres server_{clock_};
};

TEST_F(ReplicationTest, APrimaryHasItsWalTimelineAndPositions) {
  server_.Change([](FakeServerState& state) { state.timeline = 26; });
  ASSERT_OK_AND_ASSIGN(const ServerState state, QueryServerState(*Session(), absl::Seconds(1)));
  EXPECT_EQ(state.version_num, 150020);
  EXPECT_EQ(state.version, "15.20");
  EXPECT_FALSE(state.in_recovery);
  EXPECT_EQ(state.timeline, 26u);  // from the hexadecimal file name
  EXPECT_EQ(state.current.ToString(), "0/3000060");
  EXPECT_EQ(state.wal_segment_size, 16 * base::kMiB);
  EXPECT_TRUE(state.data_checksums);
  EXPECT_FALSE(state.replayed.valid());
}

TEST_F(ReplicationTest, AStandbysTimelineIsTheNewestThatItKnows) {
  server_.Change([](FakeServerState& state) {
    state.in_recovery = true;
    state.timeline = 3;  // of the minimum recovery point
    state.control_timeline = 2;
    state.replayed = base::Lsn{0x5000000};
  });
  ASSERT_OK_AND_ASSIGN(const ServerState state, QueryServerState(*Session(), absl::Seconds(1)));
  EXPECT_TRUE(state.in_recovery);
  EXPECT_EQ(state.timeline, 3u);
  EXPECT_EQ(state.control_timeline, 2u);
  EXPECT_EQ(state.replayed.ToString(), "0/5000000");
  EXPECT_EQ(state.pause_state, "not paused");
}

TEST_F(ReplicationTest, ThePauseStateIsAskedAsTheVersionKnowsIt) {
  for (const auto& [version, function] :
       {std::pair{130016, "pg_is_wal_replay_paused"}, {140000, "pg_get_wal_replay_pause_state"}}) {
    server_.Change([v = version](FakeServerState& state) { state.version = v; });
    ASSERT_OK(QueryServerState(*Session(), absl::Seconds(1)));
    EXPECT_THAT(server_.statements().back(), HasSubstr(function));
  }
}

TEST_F(ReplicationTest, WithoutAReceiverThereIsNone) {
  ASSERT_OK_AND_ASSIGN(const auto receiver, QueryReceiver(*Session(), absl::Seconds(1)));
  EXPECT_FALSE(receiver.has_value());
}

TEST_F(ReplicationTest, FollowersKeepUnknownLagUnknown) {
  server_.Change([](FakeServerState& state) {
    state.followers = {{{"pid", "11"},
                        {"application_name", "b"},
                        {"state", "streaming"},
                        {"sent_lsn", "0/20"},
                        {"replay_lsn", "0/10"},
                        {"replay_lag", "0.25"}},
                       {{"pid", "12"},
                        {"application_name", "c"},
                        {"state", "catchup"},
                        {"sent_lsn", std::nullopt},
                        {"replay_lsn", std::nullopt},
                        {"replay_lag", std::nullopt}}};
  });
  ASSERT_OK_AND_ASSIGN(const auto followers, QueryFollowers(*Session(), absl::Seconds(1)));
  ASSERT_EQ(followers.size(), 2u);
  EXPECT_EQ(followers[0].replay_lag, absl::Milliseconds(250));
  EXPECT_EQ(followers[0].replay.value, 0x10u);
  EXPECT_EQ(followers[1].replay_lag, std::nullopt);
}

TEST_F(ReplicationTest, TheArchiveBacklogIsCounted) {
  server_.Change([](FakeServerState& state) { state.ready_segments = 3; });
  ASSERT_OK_AND_ASSIGN(const ArchiverState archiver, QueryArchiver(*Session(), absl::Seconds(1)));
  EXPECT_TRUE(archiver.enabled());
  EXPECT_EQ(archiver.ready_segments, 3u);
  EXPECT_EQ(archiver.backlog_bytes, 48 * base::kMiB);
  EXPECT_EQ(archiver.oldest_ready_age, absl::Seconds(12.5));
  EXPECT_EQ(archiver.last_failed, absl::InfinitePast());
}

TEST_F(ReplicationTest, APromotionThatEndsDuringTheQuestionIsAskedForAgain) {
  const auto session = Session();
  const absl::Status ended =
      base::WithReason(absl::FailedPreconditionError("postgres: recovery is not in progress"),
                       {"POSTGRES_ERROR", {{"sqlstate", "55000"}}});
  server_.FailStatement(1, ended);
  ASSERT_OK_AND_ASSIGN(const ServerState state, QueryServerState(*session, absl::Seconds(1)));
  EXPECT_FALSE(state.in_recovery);
  EXPECT_EQ(server_.statements().size(), 2u);
  // Any other error is one.
  server_.FailStatement(1, base::WithReason(absl::FailedPreconditionError("postgres: no"),
                                            {"POSTGRES_ERROR", {{"sqlstate", "42501"}}}));
  EXPECT_THAT(QueryServerState(*session, absl::Seconds(1)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ReplicationTest, EachFailedQueryKeepsItsCode) {
  const auto session = Session();
  server_.FailStatement(1, absl::DataLossError("postgres: could not read block"));
  EXPECT_THAT(QueryServerState(*session, absl::Seconds(1)), StatusIs(absl::StatusCode::kDataLoss));
  server_.FailStatement(1, absl::UnavailableError("gone"), true);
  EXPECT_THAT(QueryArchiver(*session, absl::Seconds(1)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(session->connected());
}

TEST_F(ReplicationTest, WaitReturnsAtOnceWhenThePositionIsReached) {
  WaitForLsnRequest request;
  request.lsn = base::Lsn{0x3000060};
  request.timeline = 1;
  ASSERT_OK_AND_ASSIGN(const base::Lsn reached, WaitForLsn(*Session(), clock_, request));
  EXPECT_EQ(reached, request.lsn);
}

TEST_F(ReplicationTest, WaitFollowsTheStandbyUntilItIsThere) {
  server_.Change([](FakeServerState& state) {
    state.in_recovery = true;
    state.received = base::Lsn{0x1000};
    state.replayed = base::Lsn{0x100};
  });
  int polls = 0;
  const auto session = Session();
  WaitForLsnRequest request;
  request.lsn = base::Lsn{0x1000};
  request.what = WaitFor::kFlushed;
  EXPECT_OK(WaitForLsn(*session, clock_, request));
  request.what = WaitFor::kReplayed;
  request.cancelled = [&] {
    if (++polls == 10) {
      server_.Change([](FakeServerState& state) { state.replayed = base::Lsn{0x2000}; });
    }
    return false;
  };
  EXPECT_OK(WaitForLsn(*session, clock_, request));
  EXPECT_EQ(polls, 10);
}

TEST_F(ReplicationTest, WaitSaysHowFarItCame) {
  WaitForLsnRequest request;
  request.lsn = base::Lsn{0x9000000};
  request.timeout = absl::Seconds(3);
  const absl::Time start = clock_.Now();
  EXPECT_THAT(WaitForLsn(*Session(), clock_, request),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("0/3000060")));
  EXPECT_GE(clock_.Now() - start, absl::Seconds(3));
  EXPECT_LT(clock_.Now() - start, absl::Seconds(4));
}

TEST_F(ReplicationTest, ALaterTimelineIsNotTheOneAskedFor) {
  server_.Change([](FakeServerState& state) { state.timeline = 4; });
  WaitForLsnRequest request;
  request.lsn = base::Lsn{1};
  request.timeline = 3;
  const auto waited = WaitForLsn(*Session(), clock_, request);
  EXPECT_THAT(waited, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("timeline 4")));
  EXPECT_EQ(base::GetReason(waited.status())->reason, "TIMELINE_MISMATCH");
}

TEST_F(ReplicationTest, WithoutAReceiverTheWalItselfShowsAStandbysTimeline) {
  server_.Change([](FakeServerState& state) {
    state.in_recovery = true;
    state.control_timeline = state.timeline = 2;  // no restartpoint since the primary changed
    state.received = state.replayed = base::Lsn{0x1000};
  });
  WaitForLsnRequest request;
  request.lsn = base::Lsn{0x1000};
  request.timeline = 3;
  request.timeout = absl::Seconds(1);
  EXPECT_THAT(WaitForLsn(*Session(), clock_, request),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  base::TimelineId in_wal = 3;
  request.timeline_in_wal = [&](base::Lsn lsn) {
    EXPECT_EQ(lsn, request.lsn);
    return in_wal;
  };
  EXPECT_OK(WaitForLsn(*Session(), clock_, request));
  in_wal = 4;
  EXPECT_THAT(WaitForLsn(*Session(), clock_, request),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("timeline 4")));
}

// A receiver that asks for the next segment of a new timeline counts all before that as received.
TEST_F(ReplicationTest, WaitDoesNotTakeTheWalOfAnOldTimelineForTheNewOnes) {
  server_.Change([](FakeServerState& state) {
    state.in_recovery = true;
    state.control_timeline = 2;
    state.timeline = 3;
    state.received = base::Lsn{0x2000};
    state.replayed = base::Lsn{0x1000};
  });
  WaitForLsnRequest request;
  request.lsn = base::Lsn{0x1800};
  request.timeline = 3;
  request.what = WaitFor::kFlushed;
  request.timeout = absl::Seconds(1);
  base::TimelineId in_wal = 2;
  request.timeline_in_wal = [&](base::Lsn) { return in_wal; };
  EXPECT_THAT(
      WaitForLsn(*Session(), clock_, request),
      StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("up to 0/2000 on timeline 2")));
  in_wal = 3;
  EXPECT_OK(WaitForLsn(*Session(), clock_, request));
}

TEST_F(ReplicationTest, WaitCanBeCancelled) {
  WaitForLsnRequest request;
  request.lsn = base::Lsn{0x9000000};
  request.cancelled = [] { return true; };
  EXPECT_THAT(WaitForLsn(*Session(), clock_, request), StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace metal::pg
