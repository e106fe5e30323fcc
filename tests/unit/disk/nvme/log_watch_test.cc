#include "agent/disk/nvme/log_watch.h"

#include <algorithm>

#include "agent/disk/nvme/supported_logs.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/disk/nvme/page_fixture.h"
#include "tests/unit/disk/nvme/scripted_drive.h"

namespace metal::disk {
namespace {

using metal::testing::LoadPage;
using metal::testing::Page;
using metal::testing::Put;
using metal::testing::ScriptedDrive;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class LogWatchTest : public ::testing::Test {
 protected:
  LogWatchTest() {
    drive_.disk = "nvme0n1";
    drive_.controller = "nvme0";
    drive_.identity = {
        .model = "Example SSD", .serial = "METAL0001", .firmware = "EX1", .size_bytes = 1 << 30};
    drive_.name_space = 1;
  }
  // Refreshes `later` after the last time, and gives what was said.
  std::vector<Evidence> Refresh(absl::Duration later = absl::Seconds(10)) {
    clock_.Advance(later);
    watch_.Refresh(drive_);
    return std::exchange(said_, {});
  }

  metal::testing::SimulatedClock clock_;
  ScriptedDrive helper_{clock_};
  std::vector<Evidence> said_;
  std::vector<CounterChanges> counted_;
  LogWatch watch_{&helper_,
                  clock_,
                  [this](Evidence e) { said_.push_back(std::move(e)); },
                  {.counters = [this](const CounterChanges& c) { counted_.push_back(c); }}};
  WatchedDrive drive_;
};

TEST_F(LogWatchTest, ACriticalWarningIsSaidAtTheNextRefreshAndTakenBack) {
  EXPECT_THAT(Refresh(), IsEmpty());
  helper_.Smart(0, kMediaReadOnly, 1);
  auto said = Refresh();
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].fault_class, FaultClass::kReadOnly);
  EXPECT_EQ(said[0].device, "nvme0n1");
  EXPECT_EQ(said[0].time, clock_.Now());
  helper_.Smart(0, 0, 1);
  said = Refresh();
  ASSERT_EQ(said.size(), 1u);
  EXPECT_TRUE(said[0].clears);
}

TEST_F(LogWatchTest, GrowthOfACounterIsToldOnceWithTheReadingThatSawIt) {
  Put(helper_.controller_, 0, 0x1b36, 2);
  helper_.Smart(160, 3, 8);
  Refresh();
  Refresh();
  helper_.status_ = absl::UnavailableError("no answer");
  Refresh();
  EXPECT_THAT(counted_, IsEmpty());  // nothing to compare with, the same, and nothing read
  helper_.status_ = absl::OkStatus();
  helper_.Smart(160, 5, 8);
  Refresh();
  Refresh();
  ASSERT_EQ(counted_.size(), 1u);
  EXPECT_EQ(counted_[0].disk, "nvme0n1");
  EXPECT_EQ(counted_[0].serial, "METAL0001");
  ASSERT_EQ(counted_[0].changes.size(), 1u);
  EXPECT_EQ(counted_[0].changes[0].name, "media_errors");
  EXPECT_EQ(counted_[0].changes[0].before, 3u);
  EXPECT_EQ(counted_[0].changes[0].now, 5u);
}

TEST_F(LogWatchTest, AnotherDriveInItsPlaceHasNotGrown) {
  Put(helper_.controller_, 0, 0x1b36, 2);
  Refresh();
  drive_.identity.serial = "METAL0002";
  helper_.Smart(160, 500, 8);
  Refresh();
  EXPECT_THAT(counted_, IsEmpty());
}

// A real drive counts each question that it cannot answer among its errors.
TEST_F(LogWatchTest, ADriveIsNotAskedForALogThatItDoesNotList) {
  for (int i = 0; i < 200; ++i) Refresh(absl::Minutes(15));
  EXPECT_THAT(helper_.TakeAsked(), Not(Contains(int{kOcpLogId})));
  EXPECT_EQ(helper_.errors_, 0u);
}

TEST_F(LogWatchTest, WhereItIsWantedADriveIsAskedOnceForALogThatItDoesNotList) {
  LogWatch asking(&helper_, clock_, [](Evidence) {}, {.unlisted_logs = true});
  asking.Refresh(drive_);
  EXPECT_THAT(helper_.TakeAsked(), Contains(int{kOcpLogId}));
  EXPECT_EQ(helper_.errors_, 1u);
  for (int i = 0; i < 200; ++i) {
    clock_.Advance(absl::Minutes(15));
    asking.Refresh(drive_);
  }
  EXPECT_THAT(helper_.TakeAsked(), Not(Contains(int{kOcpLogId})));
  EXPECT_EQ(helper_.errors_, 1u);  // the drive's count did not grow by us
}

TEST_F(LogWatchTest, ADriveThatListsItsLogsIsNotAskedForOthers) {
  helper_.ListLogs({0x01, 0x02});
  for (int i = 0; i < 100; ++i) Refresh(absl::Minutes(15));
  EXPECT_EQ(helper_.errors_, 0u);
  const auto asked = helper_.TakeAsked();
  EXPECT_EQ(std::count(asked.begin(), asked.end(), kSupportedLogsId), 1);
  EXPECT_THAT(asked, Not(Contains(int{kOcpLogId})));
}

TEST_F(LogWatchTest, AVirtualDriveIsNeverAskedForWhatItCannotHave) {
  Put(helper_.controller_, 0, 0x1b36, 2);
  for (int i = 0; i < 100; ++i) Refresh(absl::Minutes(15));
  EXPECT_EQ(helper_.errors_, 0u);
  const auto asked = helper_.TakeAsked();
  EXPECT_TRUE(std::all_of(asked.begin(), asked.end(),
                          [](int id) { return id == kSmartLogId || id == kErrorLogId; }));
}

TEST_F(LogWatchTest, TheErrorLogIsReadWhenSmartCountsANewEntry) {
  Put(helper_.controller_, 0, 0x1b36, 2);
  Refresh();
  Refresh();
  EXPECT_THAT(helper_.TakeAsked(), ElementsAre(kSmartLogId, kErrorLogId, kSmartLogId));
  helper_.pages_[kErrorLogId] = LoadPage("error");
  helper_.Smart(176, 3, 8);
  const auto said = Refresh();
  ASSERT_EQ(said.size(), 2u);  // the third of the entries is noise
  EXPECT_EQ(said[0].fault_class, FaultClass::kMediaError);
  EXPECT_EQ(said[0].sector, 123'456'789u * 8);
  EXPECT_EQ(said[1].fault_class, FaultClass::kUnreliable);
  EXPECT_EQ(helper_.requests_.back().length, 64u * 64u);  // ELPE + 1 entries
}

TEST_F(LogWatchTest, VendorsLogsAreReadWhereTheyAre) {
  helper_.ListLogs({0x01, 0x02, kSelfTestLogId, kOcpLogId});
  helper_.pages_[kOcpLogId] = LoadPage("ocp");
  EXPECT_THAT(Refresh(), Contains(::testing::Field(&Evidence::text, HasSubstr("at level 1"))));
  Put(helper_.pages_[kOcpLogId], 192, 20, 8);
  const auto said = Refresh(absl::Minutes(1));
  EXPECT_THAT(said, Contains(::testing::Field(&Evidence::delta, 7)));
}

TEST_F(LogWatchTest, AmazonsVolumesTellTheirLimits) {
  Put(helper_.controller_, 0, kAmazonPciVendor, 2);
  helper_.pages_[kAwsLogId] = LoadPage("aws");
  Refresh();
  EXPECT_EQ(helper_.requests_.back().name_space, 1u);
  Put(helper_.pages_[kAwsLogId], 56, 1'000'011, 8);
  const auto said = Refresh();
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].fault_class, FaultClass::kThrottled);
  EXPECT_EQ(said[0].delta, 1'000'000);
  EXPECT_EQ(helper_.errors_, 0u);
}

TEST_F(LogWatchTest, PersistentEventsAreReadInPartsAndTheContextIsReleased) {
  Put(helper_.controller_, 261, 0x14, 1);
  helper_.pages_[kPersistentEventLogId] = LoadPage("persistent_events");
  helper_.has_context_ = true;  // left by a reader that died
  Refresh();
  EXPECT_FALSE(helper_.has_context_);
  const auto report = watch_.Reports().at("nvme0n1");
  ASSERT_TRUE(report.logs.events);
  EXPECT_EQ(report.logs.events->events.size(), 5u);
  EXPECT_TRUE(report.logs.events->complete);
  helper_.TakeAsked();
  Refresh(absl::Hours(23));
  EXPECT_THAT(helper_.TakeAsked(), Not(Contains(int{kPersistentEventLogId})));
  Refresh(absl::Hours(2));
  EXPECT_THAT(helper_.TakeAsked(), Contains(int{kPersistentEventLogId}));
}

TEST_F(LogWatchTest, SelfTestsAreReadFromDrivesThatHaveThem) {
  Put(helper_.controller_, 256, 0x10, 2);
  helper_.pages_[kSelfTestLogId] = LoadPage("self_test");
  const auto said = Refresh();
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].fault_class, FaultClass::kUnreliable);
  EXPECT_EQ(said[0].sector, 987'654u * 8);
}

TEST_F(LogWatchTest, ADriveThatDoesNotAnswerSaysNothing) {
  helper_.Smart(0, kMediaReadOnly, 1);
  EXPECT_EQ(Refresh().size(), 1u);
  helper_.TakeAsked();
  for (const auto code : {absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kNotFound,
                          absl::StatusCode::kDataLoss, absl::StatusCode::kUnavailable}) {
    helper_.status_ = absl::Status(code, "the drive is stuck");
    EXPECT_THAT(Refresh(), IsEmpty());
    EXPECT_THAT(helper_.TakeAsked(), ElementsAre(kSmartLogId));
    const auto report = watch_.Reports().at("nvme0n1");
    EXPECT_EQ(report.unavailable, "the drive is stuck");
    EXPECT_EQ(report.logs.smart->critical_warning, kMediaReadOnly);  // what it said before
  }
  helper_.status_ = absl::OkStatus();
  const int identified = helper_.identified_;
  EXPECT_EQ(Refresh().size(), 1u);
  EXPECT_EQ(helper_.identified_, identified + 1);  // it may be another one
  EXPECT_EQ(watch_.Reports().at("nvme0n1").unavailable, "");
}

TEST_F(LogWatchTest, ASlowDriveIsAskedForTheRestAtTheNextRefresh) {
  Put(helper_.controller_, 256, 0x10, 2);
  helper_.pages_[kSelfTestLogId] = Page(kSelfTestLogSize);
  helper_.ListLogs({0x01, 0x02, kSelfTestLogId, kOcpLogId});
  helper_.pages_[kOcpLogId] = LoadPage("ocp");
  helper_.slowness_ = absl::Milliseconds(200);
  const base::MonotonicTime start = clock_.Monotonic();
  Refresh(absl::ZeroDuration());
  EXPECT_LE(clock_.Monotonic() - start, absl::Milliseconds(700));
  EXPECT_FALSE(watch_.Reports().at("nvme0n1").logs.self_tests);
  for (int i = 0; i < 5; ++i) Refresh(absl::Seconds(10));
  const auto report = watch_.Reports().at("nvme0n1");
  EXPECT_TRUE(report.logs.errors && report.logs.ocp && report.logs.self_tests);
}

TEST_F(LogWatchTest, AnotherDriveUnderTheNameIsTheWrongOne) {
  helper_.Smart(0, kMediaReadOnly, 1);
  EXPECT_EQ(Refresh().size(), 1u);
  helper_.Smart(0, 0, 1);
  drive_.identity.serial = "METAL0002";
  auto said = Refresh();
  ASSERT_EQ(said.size(), 2u);
  EXPECT_TRUE(said[0].clears);  // what stood against the other one
  EXPECT_EQ(said[0].fault_class, FaultClass::kReadOnly);
  EXPECT_EQ(said[1].fault_class, FaultClass::kWrongDevice);
  EXPECT_THAT(said[1].text, HasSubstr("serial METAL0002 instead of METAL0001"));
  drive_.identity.serial = "METAL0001";
  said = Refresh();
  ASSERT_EQ(said.size(), 1u);
  EXPECT_TRUE(said[0].clears);
}

TEST_F(LogWatchTest, TheDriveThatTheAgentNotedIsExpected) {
  drive_.noted = drive_.identity;
  drive_.noted->serial = "METAL0000";
  const auto said = Refresh();
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].fault_class, FaultClass::kWrongDevice);
}

TEST_F(LogWatchTest, WhatIsNotInUseAnyMoreIsForgotten) {
  helper_.Smart(0, kMediaReadOnly, 1);
  Refresh();
  watch_.ForgetOthers({"nvme0n1"});
  EXPECT_THAT(said_, IsEmpty());
  watch_.ForgetOthers({"nvme1n1"});
  ASSERT_EQ(said_.size(), 1u);
  EXPECT_TRUE(said_[0].clears);
  EXPECT_THAT(watch_.Reports(), IsEmpty());
}

TEST_F(LogWatchTest, WithoutAHelperTheIdentityAloneIsJudged) {
  std::vector<Evidence> said;
  LogWatch watch(nullptr, clock_, [&](Evidence e) { said.push_back(std::move(e)); });
  drive_.identity.model = "MO1600JVYPR";
  drive_.identity.firmware = "HPD6";
  drive_.controller = "";
  watch.Refresh(drive_);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].fault_class, FaultClass::kFirmwareClock);
  EXPECT_EQ(watch.Reports().at("nvme0n1").unavailable, "nvme0n1 is not an NVMe drive");
  drive_.controller = "nvme0";
  watch.Refresh(drive_);
  EXPECT_THAT(watch.Reports().at("nvme0n1").unavailable, HasSubstr("helper is not running"));
}

TEST(WatchedDriveTest, TheNamespaceIsReadFromSysfs) {
  metal::testing::TempDir dir;
  dir.Write("class/block/nvme0n1/nsid", "3\n");
  DiskInfo disk;
  disk.name = "nvme0n1";
  disk.nvme_controller = "nvme0";
  disk.serial = "METAL0001";
  const WatchedDrive drive = WatchedDriveOf({.sys = dir.path()}, disk);
  EXPECT_EQ(drive.name_space, 3u);
  EXPECT_EQ(drive.identity.serial, "METAL0001");
  disk.name = "vda";
  EXPECT_EQ(WatchedDriveOf({.sys = dir.path()}, disk).name_space, 0u);
}

}  // namespace
}  // namespace metal::disk
