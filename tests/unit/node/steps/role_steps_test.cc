#include "agent/node/steps/role_steps.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "agent/base/file.h"
#include "agent/node/steps/source_steps.h"
#include "agent/pg/settings.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/node/simulated_standby.h"

namespace metal::node {
namespace {

using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

class RoleStepsTest : public ::testing::Test {
 protected:
  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  observe::StatusBoard board_{clock_};
  metal::testing::RecordedEvents events_;
  pg::Install install_{directory_.path()};
  pg::SupervisorOptions options_ = [this] {
    pg::SupervisorOptions options;
    options.data_dir = directory_.File("data");
    options.state_dir = directory_.path();
    return options;
  }();
  pg::PostgresSupervisor supervisor_{options_, install_, board_, events_, clock_};
  observe::Progress progress_{clock_};
  SimulatedStandby standby_;
  StandbySession session_{standby_};
  int refusals_ = 0;
  pg::SessionFactory connect_ = [this]() -> absl::StatusOr<std::unique_ptr<pg::SqlSession>> {
    if (refusals_-- > 0) return absl::UnavailableError("starting up");
    return std::make_unique<StandbySession>(standby_);
  };
  std::string data_dir_ = directory_.File("data");
  RoleStepContext steps_{clock_, supervisor_, connect_, data_dir_, progress_};
};

TEST_F(RoleStepsTest, ReceivingStopsOnceTheReceiverIsGone) {
  EXPECT_THAT(StopReceiving(steps_, session_), IsOkAndHolds(false));
  EXPECT_FALSE(standby_.receiver);
  EXPECT_EQ(standby_.in_force["primary_conninfo"], "");
  EXPECT_EQ(standby_.in_force["restore_command"], "");
  EXPECT_EQ(standby_.reloads, 1);
}

TEST_F(RoleStepsTest, ReceiverThatStaysIsAnError) {
  standby_.receiver_polls_left = 1 << 30;
  EXPECT_THAT(StopReceiving(steps_, session_),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("WAL receiver")));
}

TEST_F(RoleStepsTest, ReceiverThatWaitsForAnOrderIsEnded) {
  const pid_t receiver = fork();
  if (receiver == 0) {
    pause();
    _exit(0);
  }
  standby_.receiver_pid = receiver;
  standby_.receiver_status = "waiting";
  EXPECT_THAT(StopReceiving(steps_, session_), IsOkAndHolds(false));
  int ended = 0;
  ASSERT_EQ(waitpid(receiver, &ended, 0), receiver);
  EXPECT_TRUE(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGTERM);
}

TEST_F(RoleStepsTest, OldServersNeedARestartForTheRestoreCommand) {
  standby_.version = 130000;
  EXPECT_THAT(StopReceiving(steps_, session_), IsOkAndHolds(true));
  // Without one there is nothing to restart for.
  standby_.in_force["restore_command"] = "";
  EXPECT_THAT(StopReceiving(steps_, session_), IsOkAndHolds(false));
}

TEST_F(RoleStepsTest, CancelEndsTheWait) {
  standby_.receiver_polls_left = 1 << 30;
  progress_.RequestCancel();
  EXPECT_THAT(StopReceiving(steps_, session_), StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(RoleStepsTest, ReplayIsCompleteWhenItReachesWhatWasReceived) {
  EXPECT_OK(WaitUntilReplayed(steps_, session_, absl::Seconds(30)));
  EXPECT_EQ(standby_.replayed, standby_.received);
}

TEST_F(RoleStepsTest, StandingStillIsNotDone) {
  standby_.replay_step = 0;
  EXPECT_THAT(WaitUntilReplayed(steps_, session_, absl::Seconds(30)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       ::testing::AllOf(HasSubstr("0/5000000"), HasSubstr("0/5000100"))));
}

TEST_F(RoleStepsTest, StartupProcessThatWaitsForWalIsTheOtherWitness) {
  // The last record is cut: replay can never reach the received byte.
  standby_.replay_step = 0;
  standby_.wait_event = "RecoveryRetrieveRetryInterval";
  EXPECT_OK(WaitUntilReplayed(steps_, session_, absl::Seconds(30)));
  standby_.received = 0;  // never streamed: nothing to compare with
  EXPECT_OK(WaitUntilReplayed(steps_, session_, absl::Seconds(30)));
}

TEST_F(RoleStepsTest, OneLookAtAWaitingStartupProcessIsNotEnough) {
  standby_.replay_step = 0;
  standby_.wait_event = "RecoveryRetrieveRetryInterval";
  EXPECT_THAT(WaitUntilReplayed(steps_, session_, absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(RoleStepsTest, PausedReplayIsSaidSo) {
  standby_.paused = true;
  EXPECT_THAT(WaitUntilReplayed(steps_, session_, absl::Seconds(30)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("paused")));
}

TEST_F(RoleStepsTest, PromotionBehindTheFreezeIsNoticed) {
  standby_.in_recovery = false;
  EXPECT_THAT(WaitUntilReplayed(steps_, session_, absl::Seconds(30)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("left recovery")));
}

TEST_F(RoleStepsTest, PositionHasItsHistory) {
  directory_.Write("data/pg_wal/00000003.history", "1\t0/3000000\tx\n2\t0/4000000\ty\n");
  ASSERT_OK_AND_ASSIGN(const WalPosition position, ReadPosition(steps_, session_));
  EXPECT_EQ(position.timeline, 3u);
  EXPECT_EQ(position.received.value, 0x5000100u);
  EXPECT_EQ(position.history.size(), 2u);
}

TEST_F(RoleStepsTest, PositionWithoutADataDirectoryIsZero) {
  ASSERT_OK_AND_ASSIGN(const WalPosition position, ReadPositionOffline(data_dir_));
  EXPECT_EQ(position.timeline, 0u);
  EXPECT_FALSE(position.received.valid());
}

TEST_F(RoleStepsTest, SourcesAreClearedWhileTheServerIsDown) {
  EXPECT_OK(ClearSourcesOffline(data_dir_));  // no directory: nothing to do
  const std::string path = directory_.Write("data/postgresql.auto.conf",
                                            "primary_conninfo = 'host=up'\nwork_mem = '4MB'");
  ASSERT_OK(ClearSourcesOffline(data_dir_));
  ASSERT_OK_AND_ASSIGN(const std::string text, base::ReadFile(path));
  ASSERT_OK_AND_ASSIGN(const pg::SettingMap settings, pg::ParseSettings(text));
  EXPECT_EQ(settings.at("primary_conninfo"), "");
  EXPECT_EQ(settings.at("restore_command"), "");
  EXPECT_EQ(settings.at("work_mem"), "4MB");
  ASSERT_OK(ClearSourcesOffline(data_dir_));  // idempotent
  EXPECT_EQ(*base::ReadFile(path), text);
}

TEST_F(RoleStepsTest, ConnectingIsTriedAgainWhileTheServerStarts) {
  refusals_ = 5;
  EXPECT_TRUE(ConnectPatiently(steps_, absl::Seconds(5)).ok());
  refusals_ = 1000;
  EXPECT_THAT(ConnectPatiently(steps_, absl::Seconds(5)), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace metal::node
