#include "agent/disk/faults/acknowledgement.h"

#include "agent/base/status.h"
#include "agent/disk/faults/fault_desk.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::disk {
namespace {

using metal::testing::IsOk;
using metal::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class AcknowledgementTest : public ::testing::Test {
 protected:
  AcknowledgementTest() { Plug("S1"); }
  void Plug(const std::string& serial) {
    desk_.SetDisks({{"nvme0n1", {.serial = serial, .path = "/dev/nvme0n1", .roles = {"data"}}}});
  }
  void See(FaultClass fault_class, Witness witness, std::optional<int64_t> delta = {}) {
    Evidence evidence;
    evidence.fault_class = fault_class;
    evidence.witness = witness;
    evidence.device = "nvme0n1";
    evidence.delta = delta;
    desk_.Take(evidence);
  }
  absl::Status Acknowledge(const std::string& fault_class, bool force = false) {
    return desk_
        .Acknowledge({.fault_class = fault_class,
                      .subject = "",
                      .device = "",
                      .caller = "unix",
                      .reason = "known",
                      .force = force})
        .status();
  }
  bool IsAcknowledged(const std::string& fault_class) {
    const auto status = board_.Get();
    const auto found = status->faults.find(fault_class + "/nvme0n1");
    return found != status->faults.end() && found->second.disk->acknowledged.has_value();
  }

  metal::testing::SimulatedClock clock_;
  metal::testing::RecordedEvents events_;
  observe::StatusBoard board_{clock_};
  FaultDesk desk_{board_, events_, clock_};
};

TEST_F(AcknowledgementTest, TheFaultStaysInTheListWithWhoWhenAndWhyAndWeighsNothing) {
  See(FaultClass::kMediaError, Witness::kKernelLog);
  ASSERT_THAT(Acknowledge("media_error"), IsOk());
  const observe::Fault fault = board_.Get()->faults.at("media_error/nvme0n1");
  EXPECT_EQ(fault.severity, observe::Severity::kInfo);
  EXPECT_EQ(fault.disk->acknowledged->caller, "unix");
  EXPECT_EQ(fault.disk->acknowledged->reason, "known");
  EXPECT_EQ(fault.disk->acknowledged->time, clock_.Now());
  EXPECT_THAT(events_.types(), Contains("disk.fault_acknowledged"));
}

TEST_F(AcknowledgementTest, ItCountsAgainWhenMoreSpeaksForIt) {
  const auto known = [&] {
    clock_.Advance(absl::Seconds(1));
    ASSERT_THAT(Acknowledge("media_error"), IsOk());
    clock_.Advance(absl::Seconds(1));
  };
  See(FaultClass::kMediaError, Witness::kKernelLog);
  known();
  See(FaultClass::kMediaError, Witness::kKernelLog);
  EXPECT_FALSE(IsAcknowledged("media_error")) << "another line of the log";
  known();
  See(FaultClass::kMediaError, Witness::kSmartLog, 1);
  EXPECT_FALSE(IsAcknowledged("media_error")) << "another witness";
  known();
  See(FaultClass::kMediaError, Witness::kSmartLog, 2);
  EXPECT_FALSE(IsAcknowledged("media_error")) << "its counter grew";
  EXPECT_THAT(events_.types(), Contains("disk.fault_counts_again"));
}

TEST_F(AcknowledgementTest, AStateThatLastsIsNoNews) {
  See(FaultClass::kSpareLow, Witness::kSmartLog);
  ASSERT_THAT(Acknowledge("spare_low"), IsOk());
  clock_.Advance(absl::Seconds(10));
  See(FaultClass::kSpareLow, Witness::kSmartLog);
  EXPECT_TRUE(IsAcknowledged("spare_low"));
}

TEST_F(AcknowledgementTest, WhatIsConfirmedLaterIsMoreThanTheSuspicion) {
  See(FaultClass::kStalled, Witness::kProbe);
  ASSERT_THAT(Acknowledge("stalled"), IsOk()) << "fatal, and only suspected";
  See(FaultClass::kStalled, Witness::kSysfs);
  EXPECT_FALSE(IsAcknowledged("stalled"));
}

TEST_F(AcknowledgementTest, WhatIsFatalAndStillSeenWantsForce) {
  See(FaultClass::kWriteError, Witness::kKernelLog);
  const absl::Status refused = Acknowledge("write_error");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--force")));
  EXPECT_EQ(base::GetReason(refused)->reason, "FAULT_LIVE");
  EXPECT_FALSE(IsAcknowledged("write_error"));
  ASSERT_THAT(Acknowledge("write_error", true), IsOk());
  See(FaultClass::kWriteError, Witness::kKernelLog);
  EXPECT_TRUE(IsAcknowledged("write_error")) << "of the same moment";
  clock_.Advance(absl::Minutes(11));
  See(FaultClass::kFsyncError, Witness::kPostgresLog);
  clock_.Advance(absl::Minutes(11));
  EXPECT_THAT(Acknowledge("fsync_error"), IsOk()) << "an event of long ago";
  See(FaultClass::kGone, Witness::kSysfs);
  clock_.Advance(absl::Hours(1));
  EXPECT_FALSE(Acknowledge("gone").ok()) << "a state lasts until its witness says otherwise";
}

TEST_F(AcknowledgementTest, WhoseFaultItIsHasToBeClear) {
  EXPECT_THAT(Acknowledge("slow"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there are: none")));
  Evidence evidence;
  evidence.fault_class = FaultClass::kFull;
  evidence.witness = Witness::kFilesystem;
  evidence.device = "nvme0n1";
  for (const char* role : {"data", "wal"}) {
    evidence.role = role;
    desk_.Take(evidence);
  }
  EXPECT_THAT(Acknowledge("full"), StatusIs(absl::StatusCode::kFailedPrecondition,
                                            HasSubstr("name one of nvme0n1:data, nvme0n1:wal")));
  const auto both = desk_.Acknowledge(
      {.fault_class = "full", .subject = "", .device = "nvme0n1", .caller = "unix", .reason = ""});
  ASSERT_THAT(both, IsOk());
  EXPECT_THAT(*both, SizeIs(2));
}

TEST_F(AcknowledgementTest, ItEndsWithTheFaultAndWithTheDrive) {
  See(FaultClass::kSpareLow, Witness::kSmartLog);
  ASSERT_THAT(Acknowledge("spare_low"), IsOk());
  Plug("S2");
  See(FaultClass::kSpareLow, Witness::kSmartLog);
  EXPECT_FALSE(IsAcknowledged("spare_low")) << "it was said of another drive";
  ASSERT_THAT(Acknowledge("spare_low"), IsOk());
  Evidence end;
  end.fault_class = FaultClass::kSpareLow;
  end.witness = Witness::kSmartLog;
  end.device = "nvme0n1";
  end.clears = true;
  desk_.Take(end);
  EXPECT_THAT(desk_.acknowledged(), IsEmpty());
  See(FaultClass::kSpareLow, Witness::kSmartLog);
  EXPECT_FALSE(IsAcknowledged("spare_low"));
}

TEST_F(AcknowledgementTest, AfterARestartWhatComesBackAsItWasIsKnown) {
  See(FaultClass::kSpareLow, Witness::kSmartLog);
  See(FaultClass::kMediaError, Witness::kKernelLog);
  ASSERT_THAT(Acknowledge("spare_low"), IsOk());
  ASSERT_THAT(Acknowledge("media_error"), IsOk());
  const std::vector<Acknowledgement> kept = desk_.acknowledged();
  observe::StatusBoard board(clock_);
  FaultDesk next(board, events_, clock_);
  next.Restore(kept);
  clock_.Advance(absl::Minutes(1));
  Evidence evidence;
  evidence.fault_class = FaultClass::kSpareLow;
  evidence.witness = Witness::kSmartLog;
  evidence.device = "nvme0n1";
  next.Take(evidence);
  EXPECT_TRUE(board.Get()->faults.at("spare_low/nvme0n1").disk->acknowledged.has_value());
  EXPECT_THAT(next.acknowledged(), SizeIs(2));
  clock_.Advance(absl::Minutes(20));
  next.Tick();
  EXPECT_THAT(next.acknowledged(), SizeIs(1)) << "a later occurrence of the other is news";
}

TEST_F(AcknowledgementTest, WhatCouldNotBeKeptIsTakenBack) {
  See(FaultClass::kSpareLow, Witness::kSmartLog);
  const auto faults = desk_.Acknowledge({.fault_class = "spare_low",
                                         .subject = "nvme0n1",
                                         .device = "",
                                         .caller = "unix",
                                         .reason = ""});
  ASSERT_THAT(faults, IsOk());
  desk_.Withdraw(*faults);
  EXPECT_FALSE(IsAcknowledged("spare_low"));
  EXPECT_THAT(desk_.acknowledged(), IsEmpty());
}

}  // namespace
}  // namespace metal::disk
