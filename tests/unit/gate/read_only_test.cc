#include "agent/gate/read_only.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/harness/simulated_clock.h"

namespace metal::gate {
namespace {

using ::testing::HasSubstr;

class ReadOnlyTest : public ::testing::Test {
 protected:
  ReadOnlyTest() {
    status_.postgres.state = observe::PostgresState::kRunning;
    status_.postgres.role_observed = observe::Role::kStandby;
    status_.standby.present = true;
  }
  ReadOnlyVerdict Seen(std::optional<absl::Duration> lag) {
    status_.standby.time = {clock_.Now(), clock_.Monotonic()};
    status_.standby.lag_seconds = lag;
    return judge_.Judge(status_, clock_.Monotonic());
  }
  ReadOnlyVerdict Later(absl::Duration time) {
    clock_.Advance(time);
    return judge_.Judge(status_, clock_.Monotonic());
  }

  testing::SimulatedClock clock_;
  observe::NodeStatus status_;
  ReadOnlyJudge judge_{absl::Seconds(10)};
};

TEST_F(ReadOnlyTest, OpenWithinTheLimitAndClosedBeyondIt) {
  EXPECT_TRUE(Seen(absl::Seconds(9)).open);
  clock_.Advance(absl::Seconds(2));
  const ReadOnlyVerdict closed = Seen(absl::Seconds(11));
  EXPECT_FALSE(closed.open);
  EXPECT_THAT(closed.reason, HasSubstr("the limit is 10s"));
}

TEST_F(ReadOnlyTest, OpensAgainByItselfAfterTwoSecondsWithinTheLimit) {
  EXPECT_FALSE(Seen(absl::Minutes(1)).open);
  clock_.Advance(absl::Seconds(1));
  EXPECT_FALSE(Seen(absl::ZeroDuration()).open);
  EXPECT_FALSE(Later(absl::Seconds(1)).open);
  EXPECT_TRUE(Later(absl::Seconds(1)).open);
}

TEST_F(ReadOnlyTest, ALagThatIsNotKnownAnyMoreGrows) {
  EXPECT_TRUE(Seen(absl::Seconds(2)).open);
  clock_.Advance(absl::Seconds(7));
  EXPECT_TRUE(Seen(std::nullopt).open) << "at most 9 s behind";
  clock_.Advance(absl::Seconds(2));
  EXPECT_FALSE(Seen(std::nullopt).open) << "perhaps 11 s behind";
}

TEST_F(ReadOnlyTest, AStatusThatIsNotRenewedGrowsOld) {
  EXPECT_TRUE(Seen(absl::ZeroDuration()).open);
  EXPECT_TRUE(Later(absl::Seconds(9)).open);
  EXPECT_FALSE(Later(absl::Seconds(2)).open);
}

TEST_F(ReadOnlyTest, OnlyARunningStandbyIsReadFrom) {
  EXPECT_TRUE(Seen(absl::ZeroDuration()).open);
  status_.standby.present = false;
  status_.postgres.role_observed = observe::Role::kPrimary;
  EXPECT_THAT(Later(absl::Seconds(1)).reason, HasSubstr("no standby"));
  status_.postgres.state = observe::PostgresState::kStopped;
  EXPECT_THAT(Later(absl::Seconds(1)).reason, HasSubstr("does not run"));
}

TEST_F(ReadOnlyTest, AStandbyWhoseLagWasNeverKnownIsNotReadFrom) {
  EXPECT_THAT(Seen(std::nullopt).reason, HasSubstr("not known"));
}

}  // namespace
}  // namespace metal::gate
