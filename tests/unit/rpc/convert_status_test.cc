#include "agent/rpc/convert_status.h"

#include "gtest/gtest.h"

namespace metal::rpc {
namespace {

base::MonotonicTime At(absl::Duration since) { return {since}; }

TEST(ConvertStatusTest, ASectionCarriesItsAgeAtTheTimeOfTheAnswer) {
  observe::NodeStatus status;
  status.postgres.time = {absl::FromUnixSeconds(1000), At(absl::Seconds(5))};
  v1::NodeStatus out;
  ToProto(status, At(absl::Seconds(12)), &out);
  EXPECT_EQ(out.postgres().observe_age().seconds(), 7);
  EXPECT_FALSE(out.has_term_history_observe_age());
  status.term_history.time = {absl::FromUnixSeconds(1000), At(absl::Seconds(9))};
  ToProto(status, At(absl::Seconds(12)), &out);
  EXPECT_EQ(out.term_history_observe_age().seconds(), 3);
}

TEST(ConvertStatusTest, ASectionThatWasNeverObservedHasNoAge) {
  v1::NodeStatus out;
  ToProto(observe::NodeStatus{}, At(absl::Seconds(12)), &out);
  EXPECT_FALSE(out.postgres().has_observe_age());
  EXPECT_FALSE(out.has_standby());
  EXPECT_FALSE(out.has_operation());
}

TEST(ConvertStatusTest, UnknownLagIsUnsetAndZeroLagIsZero) {
  observe::NodeStatus status;
  status.standby.present = true;
  v1::NodeStatus unknown;
  ToProto(status, At(absl::ZeroDuration()), &unknown);
  EXPECT_FALSE(unknown.standby().has_lag());
  EXPECT_FALSE(unknown.standby().has_lag_bytes());
  status.standby.lag_bytes = 0;
  status.standby.lag_seconds = absl::ZeroDuration();
  v1::NodeStatus zero;
  ToProto(status, At(absl::ZeroDuration()), &zero);
  EXPECT_TRUE(zero.standby().has_lag());
  EXPECT_TRUE(zero.standby().has_lag_bytes());
}

TEST(ConvertStatusTest, EveryPostgresStateHasItsOwnEnumValue) {
  using State = observe::PostgresState;
  const std::pair<State, v1::PostgresState> pairs[] = {
      {State::kUnknown, v1::POSTGRES_STATE_UNSPECIFIED},
      {State::kNoDataDirectory, v1::POSTGRES_STATE_NO_DATA_DIRECTORY},
      {State::kStopped, v1::POSTGRES_STATE_STOPPED},
      {State::kStarting, v1::POSTGRES_STATE_STARTING},
      {State::kRunning, v1::POSTGRES_STATE_RUNNING},
      {State::kUnresponsive, v1::POSTGRES_STATE_UNRESPONSIVE},
      {State::kStopping, v1::POSTGRES_STATE_STOPPING},
      {State::kCrashed, v1::POSTGRES_STATE_CRASHED},
      {State::kQuarantined, v1::POSTGRES_STATE_QUARANTINED}};
  for (const auto& [state, expected] : pairs) {
    observe::NodeStatus status;
    status.postgres.state = state;
    v1::NodeStatus out;
    ToProto(status, At(absl::ZeroDuration()), &out);
    EXPECT_EQ(out.postgres().state(), expected);
  }
}

TEST(ConvertStatusTest, AGateThatIsOffSaysSoAndAHeldOneUntilWhen) {
  observe::NodeStatus status;
  v1::NodeStatus off;
  ToProto(status, At(absl::ZeroDuration()), &off);
  EXPECT_EQ(off.gate().state(), v1::GATE_STATE_OFF);
  EXPECT_FALSE(off.gate().has_observe_age() || off.gate().has_read_only());
  status.gate.time = {absl::FromUnixSeconds(1000), At(absl::Seconds(5))};
  status.gate.state = observe::GateState::kHeld;
  status.gate.held_until = absl::FromUnixSeconds(1030);
  status.gate.waiting = 3;
  status.gate.read_only.state = observe::ReadOnlyDoorState::kClosed;
  v1::NodeStatus held;
  ToProto(status, At(absl::Seconds(12)), &held);
  EXPECT_EQ(held.gate().state(), v1::GATE_STATE_HELD);
  EXPECT_EQ(held.gate().held_until_time().seconds(), 1030);
  EXPECT_EQ(held.gate().waiting_clients(), 3);
  EXPECT_EQ(held.gate().observe_age().seconds(), 7);
  EXPECT_EQ(held.gate().read_only().state(), v1::READ_ONLY_DOOR_STATE_CLOSED);
}

TEST(ConvertStatusTest, PressureIsThereWhereTheKernelTellsIt) {
  observe::NodeStatus status;
  v1::NodeStatus without;
  ToProto(status, At(absl::ZeroDuration()), &without);
  EXPECT_FALSE(without.has_pressure());
  status.pressure.time = {absl::FromUnixSeconds(1000), At(absl::Seconds(5))};
  status.pressure.io = {.some_10s = 0.5, .full_10s = 0.25};
  v1::NodeStatus out;
  ToProto(status, At(absl::Seconds(6)), &out);
  EXPECT_EQ(out.pressure().io().some_10s(), 0.5);
  EXPECT_EQ(out.pressure().io().full_10s(), 0.25);
  EXPECT_FALSE(out.pressure().has_cpu());
  EXPECT_EQ(out.pressure().observe_age().seconds(), 1);
}

TEST(ConvertStatusTest, DurationsBelowASecondKeepTheirSign) {
  const auto out = ToProto(absl::Milliseconds(-1500));
  EXPECT_EQ(out.seconds(), -1);
  EXPECT_EQ(out.nanos(), -500000000);
  EXPECT_EQ(FromProto(out), absl::Milliseconds(-1500));
}

}  // namespace
}  // namespace metal::rpc
