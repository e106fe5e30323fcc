#include "agent/pg/supervisor.h"

#include <csignal>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/unit/pg/supervisor_fixture.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using observe::PostgresState;
using ::testing::HasSubstr;

TEST_F(SupervisorTest, AStartIsAStandbyStartUnlessAskedOtherwise) {
  MakeSupervisor();
  ASSERT_OK_AND_ASSIGN(const StartResult started, supervisor_->Start({}));
  EXPECT_FALSE(started.was_running);
  EXPECT_TRUE(HasStandbySignal());
  EXPECT_EQ(state(), PostgresState::kRunning);
  EXPECT_EQ(board_.Get()->postgres.pid, started.pid);
  EXPECT_EQ(events_.Count("postgres.started"), 1u);
  ASSERT_OK_AND_ASSIGN(const StartResult again, supervisor_->Start({.as_standby = false}));
  EXPECT_TRUE(again.was_running);
  EXPECT_TRUE(HasStandbySignal());
  ASSERT_OK(supervisor_->Stop({}).status());
  EXPECT_EQ(state(), PostgresState::kStopped);
  EXPECT_EQ(board_.Get()->postgres.control_state, "shut down");
  ASSERT_OK(supervisor_->Start({.as_standby = false}));
  EXPECT_FALSE(HasStandbySignal());
  EXPECT_OK(supervisor_->Stop({}).status());
  EXPECT_OK(supervisor_->Stop({}).status());
}

TEST_F(SupervisorTest, AnAgentRestartAdoptsTheServerUntouched) {
  MakeSupervisor();
  ASSERT_OK_AND_ASSIGN(const StartResult started, supervisor_->Start({.as_standby = false}));
  supervisor_.reset();
  MakeSupervisor();
  ASSERT_TRUE(Await(
      [&](const observe::PostgresSection& section) { return section.state_reason == "adopted"; }));
  EXPECT_EQ(board_.Get()->postgres.pid, started.pid);
  EXPECT_TRUE(events_.Await("postgres.adopted"));
  EXPECT_EQ(supervisor_->desired(), (DesiredState{true, false, StartRole::kPrimary}));
}

// An agent that died between the launch and the move leaves a server that shares its own unit's
// fate.
TEST_F(SupervisorTest, AServerIsMovedToItsScopeWhenItIsLaunchedAndWhenItIsFoundOutsideOfIt) {
  scope_ = absl::UnavailableError("systemd does not answer");
  MakeIdleSupervisor();
  ASSERT_OK_AND_ASSIGN(const StartResult started, supervisor_->Start({}));
  EXPECT_EQ(moved_to_scope_, (std::vector<pid_t>{started.pid}));
  EXPECT_EQ(events_.Count("postgres.scope_failed"), 1u) << "it is told, and the server runs";
  EXPECT_EQ(state(), PostgresState::kRunning);
  supervisor_.reset();
  scope_ = absl::OkStatus();
  MakeIdleSupervisor();
  ASSERT_OK(supervisor_->Start({}));  // finds it, in this process's control group
  EXPECT_EQ(moved_to_scope_, (std::vector<pid_t>{started.pid, started.pid}));
  EXPECT_EQ(events_.Count("postgres.scope_failed"), 1u);
  EXPECT_OK(supervisor_->Stop({}).status());
}

TEST_F(SupervisorTest, AnActionThatFindsTheServerBeforeTheFirstLookPublishesIt) {
  MakeSupervisor();
  ASSERT_OK_AND_ASSIGN(const StartResult started, supervisor_->Start({}));
  supervisor_.reset();
  board_.Update([](observe::NodeStatus& status) { status.postgres = {}; });
  MakeIdleSupervisor();
  ASSERT_OK_AND_ASSIGN(const StartResult again, supervisor_->Start({}));
  EXPECT_TRUE(again.was_running);
  EXPECT_EQ(board_.Get()->postgres.pid, started.pid);
  EXPECT_EQ(state(), PostgresState::kRunning);
  EXPECT_EQ(events_.Count("postgres.adopted"), 1u);
  EXPECT_OK(supervisor_->Stop({}).status());
}

TEST_F(SupervisorTest, AnActionThatFindsAServerTakesItUpAsTheWatchDoes) {
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({}));
  supervisor_.reset();
  ASSERT_OK(StoreDesiredState(cluster_.state_dir(), {true, true, StartRole::kStandby}));
  board_.Update([](observe::NodeStatus& status) { status.postgres = {}; });
  MakeIdleSupervisor();
  board_.RaiseFault({"postgres_quarantined", "postgres", observe::Severity::kCritical, "", {}});
  EXPECT_THAT(supervisor_->WithServerStopped("restore", [] { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("postgres runs")));
  EXPECT_EQ(supervisor_->desired(), (DesiredState{true, false, StartRole::kStandby}));
  EXPECT_TRUE(board_.Get()->faults.empty());
  EXPECT_EQ(board_.Get()->postgres.control_state, "shut down");  // the fake never changes it
  EXPECT_OK(supervisor_->Stop({}).status());
  EXPECT_FALSE(supervisor_->desired().running);
}

TEST_F(SupervisorTest, APortThatSomebodyElseHoldsLeavesTheDataDirectoryAlone) {
  auto other = std::make_unique<Listener>();
  port_ = other->port();
  MakeSupervisor();
  int prepared = 0;
  const StartOptions options = {.prepare = [&] {
    EXPECT_FALSE(HasStandbySignal());
    ++prepared;
    return absl::OkStatus();
  }};
  EXPECT_THAT(supervisor_->Start(options), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                    HasSubstr(fmt::format("port {}", port_))));
  EXPECT_EQ(prepared, 0);
  EXPECT_FALSE(HasStandbySignal());
  other.reset();
  EXPECT_OK(supervisor_->Start(options));
  EXPECT_EQ(prepared, 1);
}

TEST_F(SupervisorTest, AnErrorWhilePreparingFailsTheStart) {
  MakeSupervisor();
  const StartOptions options = {.prepare = [] { return absl::DataLossError("bad disk"); }};
  EXPECT_THAT(supervisor_->Start(options), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(state(), PostgresState::kStopped);
  EXPECT_FALSE(HasStandbySignal());
}

TEST_F(SupervisorTest, TheTermDecidesTheRoleOfACrashRestart) {
  role_for_launch_ = [this] { return launch_role_.load(); };
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({.as_standby = false}));
  ASSERT_FALSE(HasStandbySignal());
  launch_role_ = StartRole::kStandby;
  ASSERT_OK(supervisor_->postmaster()->Signal(SIGKILL));
  ASSERT_TRUE(events_.Await("postgres.restarted"));
  EXPECT_TRUE(HasStandbySignal());
  EXPECT_EQ(supervisor_->desired().role, StartRole::kStandby);
}

TEST_F(SupervisorTest, AFenceDuringASlowSmartRestartMakesItAStandby) {
  role_for_launch_ = [this] { return launch_role_.load(); };
  MakeSupervisor();
  cluster_.Behave("stubborn smart");
  ASSERT_OK(supervisor_->Start({.as_standby = false}));
  const auto process = supervisor_->postmaster();
  absl::StatusOr<StartResult> result;
  base::Thread restart("restart", [&] {
    StopOptions stop;
    stop.mode = StopMode::kSmart;
    result = supervisor_->Restart(stop, {.as_standby = false});
  });
  ASSERT_TRUE(AwaitState(PostgresState::kStopping));
  launch_role_ = StartRole::kStandby;
  ASSERT_OK(process->Signal(SIGINT));
  restart.Join();
  ASSERT_OK(result);
  EXPECT_EQ(result->role, StartRole::kStandby);
  EXPECT_TRUE(HasStandbySignal());
  EXPECT_EQ(supervisor_->desired().role, StartRole::kStandby);
}

TEST_F(SupervisorTest, AFenceWhileThePrimaryComesUpStopsItAndStartsAStandby) {
  MakeSupervisor();
  cluster_.Behave("ready_after never");
  absl::StatusOr<StartResult> result;
  base::Thread start("start", [&] { result = supervisor_->Start({.as_standby = false}); });
  ASSERT_TRUE(Await([](const auto& section) {
    return section.state == PostgresState::kStarting && section.pid != 0;
  }));
  EXPECT_FALSE(HasStandbySignal());
  const pid_t first = board_.Get()->postgres.pid;
  cluster_.Behave("");
  may_be_primary_ = false;
  start.Join();
  ASSERT_OK(result);
  EXPECT_EQ(result->role, StartRole::kStandby);
  EXPECT_NE(result->pid, first);
  EXPECT_TRUE(HasStandbySignal());
  EXPECT_EQ(events_.Count("postgres.start_revoked"), 1u);
}

TEST_F(SupervisorTest, AFenceWhileAServerStartsThatNobodyWaitsForMakesItAStandby) {
  MakeSupervisor();
  cluster_.Behave("ready_after never");
  observe::Progress progress(base::RealClock());
  absl::StatusOr<StartResult> result;
  base::Thread start(
      "start", [&] { result = supervisor_->Start({.as_standby = false, .progress = &progress}); });
  ASSERT_TRUE(Await([](const auto& section) {
    return section.state == PostgresState::kStarting && section.pid != 0;
  }));
  progress.RequestCancel();
  start.Join();
  ASSERT_THAT(result, StatusIs(absl::StatusCode::kCancelled));
  cluster_.Behave("");
  may_be_primary_ = false;
  ASSERT_TRUE(AwaitState(PostgresState::kRunning));
  EXPECT_TRUE(HasStandbySignal());
  EXPECT_EQ(supervisor_->desired(), (DesiredState{true, false, StartRole::kStandby}));
}

TEST_F(SupervisorTest, NothingIsChangedWithoutTheLockOfTheDirectory) {
  directory_lock_ = absl::AbortedError("another agent");
  MakeSupervisor();
  EXPECT_THAT(supervisor_->Start({}), StatusIs(absl::StatusCode::kAborted));
  EXPECT_FALSE(HasStandbySignal());
  EXPECT_THAT(supervisor_->WithServerStopped("restore", [] { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("another agent")));
}

TEST_F(SupervisorTest, NothingIsStartedOnAnotherDriveThanBefore) {
  drives_ = absl::FailedPreconditionError("lies on another drive");
  MakeSupervisor();
  EXPECT_THAT(supervisor_->Start({}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another drive")));
  EXPECT_FALSE(HasStandbySignal());
  EXPECT_FALSE(supervisor_->desired().running);
  drives_ = absl::OkStatus();
  ASSERT_OK(supervisor_->Start({}));
}

TEST_F(SupervisorTest, AStoppedServerIsLeftAlone) {
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({}));
  ASSERT_OK(supervisor_->Stop({}).status());
  supervisor_.reset();
  board_.Update(
      [](observe::NodeStatus& status) { status.postgres.state = PostgresState::kUnknown; });
  MakeSupervisor();
  ASSERT_TRUE(AwaitState(PostgresState::kStopped));
  EXPECT_EQ(events_.Count("postgres.crashed"), 0u);
  EXPECT_FALSE(supervisor_->desired().running);
}

TEST_F(SupervisorTest, AFailedStartChangesNothing) {
  MakeSupervisor();
  ASSERT_OK(base::WriteFileDurably(cluster_.data_dir() + "/PG_VERSION", "13\n"));
  EXPECT_THAT(supervisor_->Start({}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("PostgreSQL 13")));
  EXPECT_FALSE(HasStandbySignal());
  EXPECT_EQ(supervisor_->desired(), DesiredState{});
  ASSERT_OK(base::WriteFileDurably(cluster_.data_dir() + "/PG_VERSION", "15\n"));
  cluster_.Behave("fail bad configuration");
  EXPECT_THAT(supervisor_->Start({}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("bad configuration")));
  EXPECT_FALSE(supervisor_->desired().running);
  EXPECT_EQ(state(), PostgresState::kStopped);
}

TEST_F(SupervisorTest, AStartWithoutProgressGivesUpAndLeavesTheServer) {
  no_progress_limit_ = absl::Seconds(2);
  MakeSupervisor();
  cluster_.Behave("ready_after never");
  const auto failed = supervisor_->Start({});
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("no progress")));
  EXPECT_EQ(base::GetReason(failed.status())->reason, "START_NO_PROGRESS");
  ASSERT_NE(supervisor_->postmaster(), nullptr);
  EXPECT_EQ(state(), PostgresState::kStarting);
  StopOptions stop;
  stop.timeout = absl::Seconds(5);
  EXPECT_OK(supervisor_->Stop(stop).status());
}

TEST_F(SupervisorTest, AStartThatNobodyWaitsForIsStillSeenToSucceed) {
  no_progress_limit_ = absl::Seconds(2);
  MakeSupervisor();
  cluster_.Behave("ready_after 4000");
  EXPECT_THAT(supervisor_->Start({}), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_TRUE(AwaitState(PostgresState::kRunning));
}

TEST_F(SupervisorTest, TheServerDyingDuringAStartIsItsError) {
  MakeSupervisor();
  cluster_.Behave("ready_after never\ndie_after 200");
  EXPECT_THAT(supervisor_->Start({}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(events_.Count("postgres.crashed"), 0u);
  EXPECT_EQ(supervisor_->postmaster(), nullptr);
}

TEST_F(SupervisorTest, ACancelledStartStopsWaiting) {
  MakeSupervisor();
  cluster_.Behave("ready_after never");
  observe::Progress progress(base::RealClock());
  progress.RequestCancel();
  StartOptions start;
  start.progress = &progress;
  EXPECT_THAT(supervisor_->Start(start), StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(SupervisorTest, OneActionAtATime) {
  MakeSupervisor();
  absl::Status inner;
  ASSERT_OK(supervisor_->WithServerStopped("restore", [&] {
    inner = supervisor_->Start({}).status();
    return absl::OkStatus();
  }));
  EXPECT_THAT(inner, StatusIs(absl::StatusCode::kAborted, HasSubstr("restore is running")));
  ASSERT_OK(supervisor_->Start({}));
  EXPECT_THAT(supervisor_->WithServerStopped("restore", [] { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("postgres runs")));
}

TEST_F(SupervisorTest, ARestartIsNoCrash) {
  MakeSupervisor();
  ASSERT_OK_AND_ASSIGN(const StartResult first, supervisor_->Start({}));
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK_AND_ASSIGN(const StartResult second, supervisor_->Restart({}, {}));
    EXPECT_NE(second.pid, first.pid);
  }
  EXPECT_EQ(events_.Count("postgres.crashed"), 0u);
  EXPECT_EQ(board_.Get()->postgres.restarts, 0);
}

TEST_F(SupervisorTest, AStopThatTimesOutIsFinishedByTheWatch) {
  MakeSupervisor();
  cluster_.Behave("stubborn smart");
  ASSERT_OK(supervisor_->Start({}));
  StopOptions smart;
  smart.mode = StopMode::kSmart;
  smart.timeout = absl::Milliseconds(200);
  EXPECT_THAT(supervisor_->Stop(smart), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(state(), PostgresState::kStopping);
  ASSERT_OK(supervisor_->postmaster()->Signal(SIGINT));
  EXPECT_TRUE(AwaitState(PostgresState::kStopped));
  EXPECT_EQ(events_.Count("postgres.crashed"), 0u);
}

TEST_F(SupervisorTest, AMissingDataDirectoryIsAState) {
  ASSERT_OK(base::RemoveTree(cluster_.data_dir()));
  MakeSupervisor();
  EXPECT_TRUE(AwaitState(PostgresState::kNoDataDirectory));
}

}  // namespace
}  // namespace metal::pg
