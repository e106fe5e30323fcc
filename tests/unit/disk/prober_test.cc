#include "agent/disk/prober.h"

#include <cerrno>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/eventually.h"
#include "tests/unit/disk/scripted_probe_device.h"

namespace metal::disk {
namespace {

using metal::testing::DeviceScript;
using metal::testing::StatusIs;
using ::testing::HasSubstr;

class ProberTest : public ::testing::Test {
 protected:
  ~ProberTest() override {
    script_->HangOpen(false);
    script_->HangSubmit(false);
    script_->Hang(false);
  }
  Prober& Start(absl::Duration between_reads = absl::Milliseconds(2),
                absl::Duration between_writes = absl::Milliseconds(4)) {
    prober_ = std::make_unique<Prober>(
        ProberOptions{.node_id = "db1",
                      .role = "data",
                      .schedule = {.read_interval = between_reads,
                                   .write_interval = between_writes,
                                   .reopen_interval = absl::Milliseconds(20)}},
        std::make_unique<metal::testing::ScriptedProbeDevice>(script_), base::RealClock());
    return *prober_;
  }
  std::shared_ptr<DeviceScript> script_ = std::make_shared<DeviceScript>();
  std::unique_ptr<Prober> prober_;
};

TEST_F(ProberTest, ReadsAndWritesAreMeasured) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] {
    const ProbeCounts counts = prober.Counts();
    return counts.read.count > 10 && counts.write.count > 5;
  }));
  EXPECT_EQ(prober.Observe().phase, ProbePhase::kRunning);
  EXPECT_EQ(prober.Observe().errors, 0u);
  EXPECT_GT(prober.Counts().read.p99, absl::ZeroDuration());
  EXPECT_TRUE(prober.Stop(absl::Seconds(5)));
  EXPECT_EQ(prober.Observe().phase, ProbePhase::kStopped);
}

TEST_F(ProberTest, EachLookAtRecentProbesBeginsAnew) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Counts().read.count > 10; }));
  EXPECT_GT(prober.TakeRecent().read.count, 5u);
  ASSERT_TRUE(Eventually([&] { return prober.TakeRecent().write.count > 0; }));
  script_->Hang(true);
  ASSERT_TRUE(Eventually([&] { return script_->outstanding() == 8; }));
  (void)prober.TakeRecent();
  ASSERT_TRUE(Eventually([&] {
    const RecentProbes recent = prober.TakeRecent();
    return recent.read.count == 0 && recent.oldest_outstanding > absl::Milliseconds(20);
  }));
  uint64_t reads = 0;
  for (const auto& [edge, count] : prober.Buckets(false)) reads += count;
  EXPECT_EQ(reads, prober.Counts().read.count);
}

TEST_F(ProberTest, AHungDeviceGetsEightProbesAndNoMoreAndTheirAgeGrows) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > 5; }));
  script_->Hang(true);
  ASSERT_TRUE(
      Eventually([&] { return prober.Observe().oldest_outstanding > absl::Milliseconds(100); }));
  EXPECT_EQ(script_->outstanding(), 8u);
  EXPECT_EQ(script_->most_outstanding(), 8u);
  script_->Hang(false);
  ASSERT_TRUE(
      Eventually([&] { return prober.Observe().oldest_outstanding < absl::Milliseconds(50); }));
}

// What is submitted while the kernel resets a drive waits in the kernel, and holds the agent.
TEST_F(ProberTest, WhileOneTransferStandsStillNoOtherIsSubmitted) {
  script_->Hang(true);
  Prober& prober = Start(absl::Milliseconds(500), absl::Seconds(10));
  ASSERT_TRUE(Eventually([&] { return prober.Observe().oldest_outstanding > absl::Seconds(2.2); }));
  const size_t started = script_->started();
  EXPECT_LT(started, size_t{kProbeSlots});
  ASSERT_TRUE(Eventually([&] { return prober.Observe().oldest_outstanding > absl::Seconds(3.5); }));
  EXPECT_EQ(script_->started(), started);
  script_->Hang(false);
  EXPECT_TRUE(Eventually([&] { return script_->started() > started + 2; }));
}

TEST_F(ProberTest, ReadsByChanceGoOnWhereEachReadHasAWriteBehindIt) {
  Prober& prober = Start(absl::Milliseconds(2), absl::Milliseconds(2));
  ASSERT_TRUE(Eventually([&] { return prober.Counts().write.count > 40; }));
  ASSERT_TRUE(prober.Stop(absl::Seconds(5)));
  const auto transfers = script_->transfers();
  int ahead = 0, by_chance = 0;
  for (size_t i = 0; i + 1 < transfers.size(); ++i) {
    if (transfers[i].first || !transfers[i + 1].first) continue;
    ++(transfers[i].second == transfers[i + 1].second ? ahead : by_chance);
  }
  EXPECT_GT(ahead, 10);
  EXPECT_GT(by_chance, 10);
}

TEST_F(ProberTest, LateCompletionsAreCounted) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > 5; }));
  script_->Hang(true);
  ASSERT_TRUE(Eventually([&] { return script_->outstanding() == 8; }));
  base::RealClock().Sleep(absl::Milliseconds(260));
  script_->Hang(false);
  ASSERT_TRUE(Eventually([&] { return prober.Counts().late >= 8; }));
}

TEST_F(ProberTest, AProberThatHangsIsLeftBehindAndEndsWhenItsDeviceAnswers) {
  Start();
  ASSERT_TRUE(Eventually([&] { return prober_->Observe().on_time > 5; }));
  script_->Hang(true);
  ASSERT_TRUE(Eventually([&] { return script_->outstanding() == 8; }));
  const base::MonotonicTime start = base::RealClock().Monotonic();
  EXPECT_FALSE(prober_->Stop(absl::Milliseconds(50)));
  prober_.reset();
  EXPECT_LT(base::RealClock().Monotonic() - start, absl::Milliseconds(500));
  EXPECT_GT(script_.use_count(), 1);  // the thread still owns its device
  script_->Hang(false);
  EXPECT_TRUE(Eventually([&] { return script_.use_count() == 1; }));
}

TEST_F(ProberTest, ABlockedOpenIsSeenFromOutsideAndHoldsNobody) {
  script_->HangOpen(true);
  Prober& prober = Start();
  ASSERT_TRUE(
      Eventually([&] { return prober.Observe().oldest_outstanding > absl::Milliseconds(50); }));
  EXPECT_EQ(prober.Observe().phase, ProbePhase::kOpening);
  ProbeBurst burst{.reads = 1};
  EXPECT_THAT(prober.RunBurst(burst, absl::Seconds(1), [](uint32_t) { return true; }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("being opened")));
  EXPECT_FALSE(prober.Stop(absl::Milliseconds(20)));
}

TEST_F(ProberTest, ABlockedSubmissionIsSeenFromOutside) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > 5; }));
  script_->HangSubmit(true);
  ASSERT_TRUE(
      Eventually([&] { return prober.Observe().oldest_outstanding > absl::Milliseconds(50); }));
  script_->HangSubmit(false);
}

TEST_F(ProberTest, ErrorsAreClassifiedAndNamed) {
  Prober& prober = Start();
  script_->FailReads(-ENODATA);
  ASSERT_TRUE(Eventually([&] { return prober.Counts().read_errors > 0; }));
  EXPECT_EQ(prober.Observe().last_fault, ProbeFault::kMediaError);
  EXPECT_THAT(prober.Counts().last_error, HasSubstr("No data available"));
  script_->FailReads(DeviceScript::kZero);
  ASSERT_TRUE(Eventually([&] { return prober.Observe().last_fault == ProbeFault::kGone; }));
  script_->FailReads(DeviceScript::kGood);
  script_->FailWrites(-EIO);
  ASSERT_TRUE(Eventually([&] { return prober.Observe().last_fault == ProbeFault::kWriteError; }));
  EXPECT_GT(prober.Counts().write_errors, 0u);
}

TEST_F(ProberTest, AfterErrorsInARowTheFileIsOpenedAgain) {
  script_->FailReads(-EIO);
  script_->FailWrites(-EIO);
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return script_->opens() >= 3; }));
  script_->FailReads(DeviceScript::kGood);
  script_->FailWrites(DeviceScript::kGood);
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time_in_a_row > 20; }));
}

TEST_F(ProberTest, AFileThatAnotherProgramCutIsNoFaultOfTheDrive) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > 5; }));
  const size_t opens = script_->opens();
  script_->Cut(true);
  ASSERT_TRUE(Eventually([&] { return script_->opens() > opens; }));
  EXPECT_THAT(prober.Counts().last_error, HasSubstr("was cut by another program"));
  const uint64_t before = prober.Observe().on_time;
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > before + 20; }));
  EXPECT_EQ(prober.Observe().errors, 0u);
}

// What a hole cannot answer is the drive's word, whatever was done to the file.
TEST_F(ProberTest, OtherBytesInAFileThatWasCutAreAFaultAllTheSame) {
  script_->OnlyBlocks(4);
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Counts().write.count > 20; })) << "each was written";
  script_->CutElsewhere(true);
  script_->DropWrites(true);
  ASSERT_TRUE(Eventually([&] { return prober.Observe().errors > 0; }));
}

TEST_F(ProberTest, ATransferThatIsNotSupportedIsNoError) {
  script_->FailReads(-EINVAL);
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().phase == ProbePhase::kUnsupported; }));
  EXPECT_THAT(prober.reason(), HasSubstr("Invalid argument"));
  EXPECT_EQ(prober.Observe().errors, 0u);
}

TEST_F(ProberTest, AFailedOpenSaysWhyAndIsTriedAgain) {
  script_->FailOpen(absl::NotFoundError("open /pg/.metal-probe: No such file or directory"));
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().phase == ProbePhase::kUnavailable; }));
  EXPECT_THAT(prober.reason(), HasSubstr("No such file"));
  EXPECT_EQ(prober.Observe().errors, 0u);
  script_->FailOpen(absl::OkStatus());
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > 5; }));
  EXPECT_EQ(prober.reason(), "");
}

TEST_F(ProberTest, ADeviceThatFailsTheOpenIsAnError) {
  script_->FailOpen(absl::DataLossError("open /pg/.metal-probe: Input/output error"));
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().errors > 0; }));
  EXPECT_EQ(prober.Observe().last_fault, ProbeFault::kMediaError);
}

TEST_F(ProberTest, AConfirmedWriteThatWasLostIsFound) {
  script_->DropWrites(true);
  Prober& prober = Start();
  // Enough writes that a random read meets one of them.
  ASSERT_TRUE(Eventually([&] { return prober.Observe().phase == ProbePhase::kRunning; }));
  ProbeBurst writes{.writes = 4096};
  ASSERT_OK(prober.RunBurst(writes, absl::Seconds(30), [](uint32_t) { return true; }));
  ASSERT_TRUE(Eventually([&] { return prober.Observe().last_fault == ProbeFault::kLostWrite; }));
  EXPECT_THAT(prober.Counts().last_error, HasSubstr("lost write"));
}

// Where a machine is so busy that each read goes before a write, every other one is by chance.
TEST_F(ProberTest, WhatAWriteWillReplaceIsReadBeforeIt) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Counts().write.count > 20; }));
  ASSERT_TRUE(prober.Stop(absl::Seconds(5)));
  std::set<uint32_t> read;
  int writes = 0, reads_between = 0, unread_in_a_row = 0;
  for (const auto& [is_write, block] : script_->transfers()) {
    if (!is_write) {
      read.insert(block);
      ++reads_between;
      continue;
    }
    unread_in_a_row = read.contains(block) ? 0 : unread_in_a_row + 1;
    EXPECT_LE(unread_in_a_row, reads_between > 1 ? 0 : 1) << block;
    if (block == 0) unread_in_a_row = 0;  // the next lap reads the others
    reads_between = 0;
    ++writes;
  }
  EXPECT_GT(writes, 20);
}

TEST_F(ProberTest, WritesThatGoToTheWrongPlaceAreFound) {
  script_->OnlyBlocks(64);
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().last_fault == ProbeFault::kLostWrite; }));
}

TEST_F(ProberTest, WhatWasStoredIsReadBackWithoutComplaint) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().phase == ProbePhase::kRunning; }));
  ProbeBurst burst{.reads = 2000, .writes = 4096};
  ASSERT_OK(prober.RunBurst(burst, absl::Seconds(30), [](uint32_t) { return true; }));
  ProbeBurst again{.reads = 5000};
  ASSERT_OK(prober.RunBurst(again, absl::Seconds(30), [](uint32_t) { return true; }));
  EXPECT_EQ(prober.Observe().errors, 0u) << prober.Counts().last_error;
}

TEST_F(ProberTest, ABurstCountsWhatItAskedFor) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().phase == ProbePhase::kRunning; }));
  ProbeBurst burst{.reads = 300, .writes = 100};
  uint32_t last = 0;
  ASSERT_OK(prober.RunBurst(burst, absl::Seconds(30), [&](uint32_t completed) {
    EXPECT_GE(completed, last);
    last = completed;
    return true;
  }));
  EXPECT_EQ(last, 400u);
  EXPECT_EQ(burst.read.count, 300u);
  EXPECT_EQ(burst.write.count, 100u);
}

TEST_F(ProberTest, ABurstOnAHungDeviceEndsAtItsDeadlineAndWhenCancelled) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > 5; }));
  script_->Hang(true);
  ProbeBurst burst{.reads = 10};
  EXPECT_THAT(prober.RunBurst(burst, absl::Milliseconds(150), [](uint32_t) { return true; }),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("0 of 10")));
  EXPECT_THAT(prober.RunBurst(burst, absl::Seconds(10), [](uint32_t) { return false; }),
              StatusIs(absl::StatusCode::kCancelled));
  script_->Hang(false);
  ASSERT_OK(prober.RunBurst(burst, absl::Seconds(10), [](uint32_t) { return true; }));
  EXPECT_EQ(burst.read.count, 10u);
}

TEST_F(ProberTest, ABurstCountsErrors) {
  Prober& prober = Start();
  ASSERT_TRUE(Eventually([&] { return prober.Observe().on_time > 5; }));
  script_->FailWrites(-EIO);
  ProbeBurst burst{.reads = 2, .writes = 5};
  ASSERT_OK(prober.RunBurst(burst, absl::Seconds(10), [](uint32_t) { return true; }));
  EXPECT_EQ(burst.write_errors, 5u);
  EXPECT_EQ(burst.write.count, 0u);
  EXPECT_THAT(burst.last_error, HasSubstr("Input/output error"));
}

}  // namespace
}  // namespace metal::disk
