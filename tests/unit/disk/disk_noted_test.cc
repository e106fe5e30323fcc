// What the monitor keeps between two runs of the agent.
#include <algorithm>
#include <cstdio>

#include "agent/base/file.h"
#include "agent/disk/disk_monitor.h"
#include "agent/disk/slow/learned_drive.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/monitored_drive.h"

namespace metal::disk {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

using DiskNotedTest = MonitoredDrive;

TEST_F(DiskNotedTest, ADriveThatWasChangedWhileTheAgentWasDownIsNamedUntilAnOperatorTakesIt) {
  record_path_ = dir_.File("state/disks");
  dir_.Write("state/x", "");
  dir_.Write("sys/devices/nvme0/serial", "S1\n");
  dir_.Write("sys/devices/nvme0/nvme0n1/wwid", "eui.01\n");
  const auto noted = [&](const std::string& serial) {
    return Eventually([&] {
      const auto text = base::ReadFile(record_path_);
      return text.ok() && text->find("\t" + serial + "\t") != std::string::npos;
    });
  };
  Start().AddTarget("data", dir_.path());
  ASSERT_TRUE(noted("S1"));
  EXPECT_FALSE(HasFault("wrong_device/nvme0n1"));
  monitor_.reset();
  dir_.Write("sys/devices/nvme0/serial", "S2\n");
  dir_.Write("sys/devices/nvme0/nvme0n1/wwid", "eui.02\n");
  DiskMonitor& monitor = Start();
  // Before anything is watched: a server is not to start on it.
  const absl::Status refused = monitor.CheckDrives(dir_.path());
  EXPECT_EQ(metal::testing::ReasonOf(refused), "WRONG_DEVICE");
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("lies on Test Drive S2, and was on Test Drive S1"));
  EXPECT_OK(monitor.CheckDrives(dir_.path() + "/elsewhere")) << "another database";
  ASSERT_EQ(symlink(dir_.path().c_str(), dir_.File("link").c_str()), 0);
  EXPECT_FALSE(monitor.CheckDrives(dir_.File("link")).ok()) << "the same by another name";
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(Eventually([&] { return HasFault("wrong_device/nvme0n1"); }));
  const observe::Fault fault = board_.Get()->faults.at("wrong_device/nvme0n1");
  EXPECT_THAT(fault.message, HasSubstr("serial S2 instead of S1"));
  EXPECT_THAT(fault.message, HasSubstr("world-wide name eui.02 instead of eui.01"));
  const auto taken = monitor.Acknowledge({.fault_class = "wrong_device",
                                          .subject = "",
                                          .device = "nvme0n1",
                                          .caller = "unix",
                                          .reason = "new drive"});
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_OK(monitor.CheckDrives(dir_.path()));
  ASSERT_TRUE(noted("S2"));
  EXPECT_TRUE(Eventually([&] { return !HasFault("wrong_device/nvme0n1"); }));
  EXPECT_THAT(events_.types(), Contains("disk.drive_noted"));
}

TEST_F(DiskNotedTest, ADatabaseThatIsMadeAnewOnAnotherDriveIsExpectedThere) {
  record_path_ = dir_.File("state/disks");
  dir_.Write("state/x", "");
  dir_.Write("state/disks", "drive\tdata\t" + dir_.path() + "\tTest Drive\tS1\t\t\t1048576\n");
  dir_.Write("sys/devices/nvme0/serial", "S2\n");
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(Eventually([&] { return HasFault("wrong_device/nvme0n1"); }));
  EXPECT_FALSE(monitor.CheckDrives(dir_.path()).ok());
  monitor.NoteDrivesAnew();
  EXPECT_OK(monitor.CheckDrives(dir_.path())) << "at once: the server is started next";
  EXPECT_TRUE(Eventually([&] { return !HasFault("wrong_device/nvme0n1"); }));
}

TEST_F(DiskNotedTest, WhatWasLearnedOfTheDriveIsRecalledAndKept) {
  learned_path_ = dir_.File("state/learned");
  dir_.Write("sys/devices/nvme0/serial", "S1\n");
  dir_.Write("sys/devices/nvme0/nvme0n1/stat", "9 0 72 1 9 0 72 1 0 2 2 0 0 0 0 0 0\n");
  dir_.Write("sys/devices/nvme0/nvme0n1/inflight", "0 0\n");
  LearnedDrives learned;
  learned["Test Drive S1"].time = absl::Now() - absl::Hours(24);
  for (LearnedChannel& channel : learned["Test Drive S1"].channels) {
    channel = {.bins = {{0, {3600, 11.5, 0.1}}}, .history = {7200, 0, 0.1}, .difference = {}};
  }
  dir_.Write("state/learned", EncodeLearned(learned));
  Start().AddTarget("data", dir_.path());
  EXPECT_TRUE(Eventually([&] {
    const auto status = board_.Get();
    return !status->disks.empty() && status->disks[0].slowness &&
           !status->disks[0].slowness->learning;
  })) << "it judges at once";
  EXPECT_TRUE(Eventually([&] {
    const auto kept = DecodeLearned(base::ReadFile(learned_path_).value_or(""));
    return kept.ok() && kept->contains("Test Drive S1") &&
           absl::Now() - *kept->at("Test Drive S1").time < absl::Hours(1) &&
           kept->at("Test Drive S1").channels[0].history.count == 7200;
  })) << "it is of today now";
}

TEST_F(DiskNotedTest, WhatWasLearnedAndMakesNoSenseIsNamedAndBegunAnew) {
  learned_path_ = dir_.File("state/learned");
  dir_.Write("state/learned", "stranger\n");
  Start().AddTarget("data", dir_.path());
  EXPECT_TRUE(
      Eventually([&] { return DecodeLearned(base::ReadFile(learned_path_).value_or("")).ok(); }));
  EXPECT_THAT(events_.types(), Contains("disk.learned_lost"));
}

// A directory can be read by nobody as a file: what may be there is not written over.
TEST_F(DiskNotedTest, WhatCouldNotBeReadIsNotWrittenOver) {
  learned_path_ = dir_.File("state/learned");
  dir_.Write("state/learned/x", "");
  Start().AddTarget("data", dir_.path());
  EXPECT_TRUE(Eventually([&] { return WasTold("disk.learned_lost"); }));
  dir_.Write("state/other", EncodeLearned({}));
  ASSERT_EQ(rename(dir_.File("state/learned").c_str(), dir_.File("state/away").c_str()), 0);
  ASSERT_EQ(rename(dir_.File("state/other").c_str(), learned_path_.c_str()), 0);
  EXPECT_TRUE(Eventually([&] {
    const auto types = events_.types();
    return base::ReadFile(learned_path_).ok() &&
           std::ranges::count(types, "disk.learned_lost") == 1;
  })) << "told once, and read as soon as it can be";
}

TEST_F(DiskNotedTest, ARecordThatCannotBeReadIsNamedAndBegunAnew) {
  record_path_ = dir_.File("state/disks");
  dir_.Write("state/disks", "stranger\n");
  Start().AddTarget("data", dir_.path());
  EXPECT_TRUE(Eventually([&] { return WasTold("disk.record_lost"); }));
}

}  // namespace
}  // namespace metal::disk
