#include "agent/disk/nvme/log_judge.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/disk/nvme/healthy_logs.h"

namespace metal::disk {
namespace {

using metal::testing::Healthy;
using metal::testing::SelfTest;
using ::testing::IsEmpty;

class LogJudgeTest : public ::testing::Test {
 protected:
  // What the judge says to `logs`, `later` after the last time.
  std::vector<Evidence> Judge(DriveLogs logs, absl::Duration later = absl::Seconds(10)) {
    now_ = now_ + later;
    logs.monotonic = now_;
    return judge_.Judge(logs);
  }
  LogJudge judge_{"nvme0n1"};
  base::MonotonicTime now_{absl::Hours(1)};
};

TEST_F(LogJudgeTest, AStateIsToldAsLongAsItHoldsAndClearedOnce) {
  DriveLogs sick = Healthy();
  sick.smart->critical_warning = kMediaReadOnly;
  EXPECT_THAT(Judge(Healthy()), IsEmpty());
  for (int i = 0; i < 3; ++i) {
    const auto evidence = Judge(sick);
    ASSERT_EQ(evidence.size(), 1u);
    EXPECT_EQ(evidence[0].fault_class, FaultClass::kReadOnly);
    EXPECT_FALSE(evidence[0].clears);
  }
  const auto ended = Judge(Healthy());
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_TRUE(ended[0].clears);
  EXPECT_EQ(ended[0].fault_class, FaultClass::kReadOnly);
  EXPECT_EQ(ended[0].witness, Witness::kSmartLog);
  EXPECT_EQ(ended[0].text, "no longer read_only, says its smart_log");
  EXPECT_THAT(Judge(Healthy()), IsEmpty());
}

TEST_F(LogJudgeTest, AClassWithTwoCausesIsClearedWhenBothAreGone) {
  DriveLogs sick = Healthy();
  sick.smart->critical_warning = kReliabilityDegraded | kVolatileMemoryBackupFailed;
  EXPECT_EQ(Judge(sick).size(), 2u);
  sick.smart->critical_warning = kReliabilityDegraded;
  const auto evidence = Judge(sick);
  ASSERT_EQ(evidence.size(), 1u);
  EXPECT_FALSE(evidence[0].clears);
  EXPECT_TRUE(Judge(Healthy()).at(0).clears);
}

TEST_F(LogJudgeTest, ACounterOfMinutesDoesNotFlap) {
  DriveLogs logs = Healthy();
  EXPECT_THAT(Judge(logs), IsEmpty());
  logs.smart->warning_temperature_time += absl::Minutes(1);
  EXPECT_EQ(Judge(logs).size(), 1u);
  EXPECT_THAT(Judge(logs, absl::Seconds(50)), IsEmpty());
  logs.smart->warning_temperature_time += absl::Minutes(1);
  EXPECT_FALSE(Judge(logs).at(0).clears);
  EXPECT_THAT(Judge(logs, LogJudge::kQuiet), IsEmpty());
  EXPECT_TRUE(Judge(logs).at(0).clears);
}

TEST_F(LogJudgeTest, WhatHappenedOnceIsNotCleared) {
  DriveLogs logs = Healthy();
  EXPECT_THAT(Judge(logs), IsEmpty());
  ++logs.smart->media_errors;
  EXPECT_EQ(Judge(logs).size(), 1u);
  EXPECT_THAT(Judge(logs, absl::Hours(10)), IsEmpty());
}

TEST_F(LogJudgeTest, AWitnessThatDoesNotSeeDoesNotClear) {
  DriveLogs sick = Healthy();
  sick.ocp->capacitor_percent = 0;
  EXPECT_EQ(Judge(sick).size(), 1u);
  DriveLogs blind = Healthy();
  blind.ocp.reset();
  EXPECT_THAT(Judge(blind), IsEmpty());
  EXPECT_TRUE(Judge(Healthy()).at(0).clears);
}

TEST_F(LogJudgeTest, ASelfTestThatPassesClearsOneThatFailed) {
  DriveLogs logs = Healthy();
  logs.self_tests->results = {SelfTest(7)};
  EXPECT_EQ(Judge(logs).at(0).fault_class, FaultClass::kUnreliable);
  logs.self_tests->results = {SelfTest(0), SelfTest(7)};
  EXPECT_TRUE(Judge(logs).at(0).clears);
}

TEST_F(LogJudgeTest, WhatStandsIsTakenBackWithTheDrive) {
  DriveLogs sick = Healthy();
  sick.smart->critical_warning = kMediaReadOnly | kTemperatureOutOfRange;
  EXPECT_EQ(Judge(sick).size(), 2u);
  const auto withdrawn = judge_.Withdraw("it was taken out", absl::UnixEpoch());
  ASSERT_EQ(withdrawn.size(), 2u);
  EXPECT_TRUE(withdrawn[0].clears);
  EXPECT_EQ(withdrawn[0].text, "it was taken out");
  EXPECT_THAT(judge_.Withdraw("again", absl::UnixEpoch()), IsEmpty());
}

}  // namespace
}  // namespace metal::disk
