// What becomes of a server that dies while it should run.
#include <csignal>

#include "agent/pg/port_owner.h"
#include "gmock/gmock.h"
#include "tests/unit/pg/supervisor_fixture.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using observe::PostgresState;

TEST_F(SupervisorTest, ACrashIsSeenWithinASecondAndRestartedInItsRole) {
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({.as_standby = false}));
  const auto process = supervisor_->postmaster();
  const base::MonotonicTime start = base::RealClock().Monotonic();
  ASSERT_OK(process->Signal(SIGKILL));
  ASSERT_TRUE(Await([&](const auto& section) { return section.state != PostgresState::kRunning; }));
  EXPECT_LT(base::RealClock().Monotonic() - start, absl::Seconds(1));
  ASSERT_TRUE(AwaitState(PostgresState::kRunning));
  EXPECT_NE(supervisor_->postmaster()->pid(), process->pid());
  EXPECT_FALSE(HasStandbySignal());
  EXPECT_EQ(events_.Count("postgres.crashed"), 1u);
  EXPECT_EQ(board_.Get()->postgres.restarts, 1);
  ASSERT_TRUE(events_.Await("postgres.restarted"));
}

TEST_F(SupervisorTest, ACrashRestartWaitsForADyingChildThatHoldsThePort) {
  port_ = Listener().port();  // free again
  MakeSupervisor();
  cluster_.Behave(fmt::format("child {} 200", port_));
  ASSERT_OK(supervisor_->Start({}));
  cluster_.Behave("");
  ASSERT_FALSE(CheckPortFree(port_, "127.0.0.1", cluster_.socket_dir()).ok());
  ASSERT_OK(supervisor_->postmaster()->Signal(SIGKILL));
  ASSERT_TRUE(events_.Await("postgres.restarted"));
  EXPECT_EQ(events_.Count("postgres.start_failed"), 0u);
  EXPECT_EQ(board_.Get()->postgres.restarts, 1);
}

TEST_F(SupervisorTest, TooManyCrashesAreAQuarantineThatOutlivesTheAgent) {
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({}));
  cluster_.Behave("die_after 10");
  ASSERT_OK(supervisor_->postmaster()->Signal(SIGKILL));
  ASSERT_TRUE(events_.Await("postgres.quarantined"));
  EXPECT_EQ(state(), PostgresState::kQuarantined);
  EXPECT_EQ(board_.Get()->faults.size(), 1u);
  supervisor_.reset();
  cluster_.Behave("");
  MakeSupervisor();
  EXPECT_EQ(state(), PostgresState::kQuarantined);
  EXPECT_TRUE(supervisor_->desired().quarantined);
  cluster_.Behave("fail still broken");
  EXPECT_THAT(supervisor_->Start({}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(state(), PostgresState::kQuarantined);
  EXPECT_EQ(board_.Get()->faults.size(), 1u);
  // A caller's start ends it.
  cluster_.Behave("");
  ASSERT_OK(supervisor_->Start({}));
  EXPECT_TRUE(board_.Get()->faults.empty());
  EXPECT_FALSE(supervisor_->desired().quarantined);
}

TEST_F(SupervisorTest, AServerThatIsHeldDownIsNotStartedAgainAndThatIsToldOnce) {
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({}));
  held_down_ = true;
  ASSERT_OK(supervisor_->postmaster()->Signal(SIGKILL));
  ASSERT_TRUE(AwaitState(PostgresState::kStopped));
  EXPECT_EQ(board_.Get()->postgres.state_reason, "its disk is sick");
  // Looks that find it dead: by this agent and by the next one.
  const auto ended = board_.Get()->postgres.time.monotonic;
  ASSERT_TRUE(Await(
      [&](const auto& section) { return section.time.monotonic - ended > absl::ZeroDuration(); }));
  EXPECT_EQ(events_.Count("postgres.held_down"), 1u);
  supervisor_.reset();
  MakeSupervisor();
  ASSERT_TRUE(events_.Await("postgres.held_down", 2));
  EXPECT_EQ(events_.Count("postgres.crashed"), 0u);
  EXPECT_EQ(events_.Count("postgres.quarantined"), 0u);
  EXPECT_EQ(board_.Get()->postgres.restarts, 0);
  held_down_ = false;
  EXPECT_TRUE(events_.Await("postgres.restarted"));
}

TEST_F(SupervisorTest, AServerThatDiedWhileTheAgentWasAwayIsStartedAgain) {
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({}));
  const auto process = supervisor_->postmaster();
  supervisor_.reset();
  ASSERT_OK(process->Signal(SIGKILL));
  ASSERT_TRUE(process->WaitExit(absl::Seconds(5)));
  MakeSupervisor();
  ASSERT_TRUE(events_.Await("postgres.restarted"));
}

// Others may lead by now. A crash that the agent sees is another matter: nobody else was asked.
TEST_F(SupervisorTest, APrimaryThatDiedUnseenComesBackAsAStandby) {
  const auto restarted = [this](size_t times) {
    return Await([&](const auto&) { return events_.Count("postgres.restarted") == times; });
  };
  shares_commits_ = true;
  role_for_launch_ = [this] { return launch_role_.load(); };
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({.as_standby = false}));
  const auto first = supervisor_->postmaster();
  supervisor_.reset();
  MakeSupervisor();
  ASSERT_TRUE(events_.Await("postgres.adopted"));
  ASSERT_OK(first->Signal(SIGKILL));
  ASSERT_TRUE(restarted(1));
  EXPECT_FALSE(HasStandbySignal());

  const auto second = supervisor_->postmaster();
  supervisor_.reset();
  ASSERT_OK(second->Signal(SIGKILL));
  ASSERT_TRUE(second->WaitExit(absl::Seconds(5)));
  MakeSupervisor();
  ASSERT_TRUE(restarted(2));
  EXPECT_THAT(events_.types(), ::testing::Contains("postgres.back_as_standby"));
  EXPECT_TRUE(HasStandbySignal());
  ASSERT_TRUE(AwaitState(PostgresState::kRunning));

  // It has run: from here on its term decides again.
  ASSERT_OK(supervisor_->postmaster()->Signal(SIGKILL));
  ASSERT_TRUE(restarted(3));
  EXPECT_FALSE(HasStandbySignal());
}

TEST_F(SupervisorTest, APrimaryWithoutStandbysComesBackAsItWas) {
  role_for_launch_ = [this] { return launch_role_.load(); };
  MakeSupervisor();
  ASSERT_OK(supervisor_->Start({.as_standby = false}));
  const auto process = supervisor_->postmaster();
  supervisor_.reset();
  ASSERT_OK(process->Signal(SIGKILL));
  ASSERT_TRUE(process->WaitExit(absl::Seconds(5)));
  MakeSupervisor();
  ASSERT_TRUE(events_.Await("postgres.restarted"));
  EXPECT_FALSE(HasStandbySignal());
}

}  // namespace
}  // namespace metal::pg
