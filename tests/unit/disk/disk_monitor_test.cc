#include "agent/disk/disk_monitor.h"

#include <algorithm>
#include <cerrno>

#include "agent/base/file.h"
#include "agent/disk/probe_run.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/monitored_drive.h"

namespace metal::disk {
namespace {

using metal::testing::DeviceScript;
using metal::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using DiskMonitorTest = MonitoredDrive;

TEST_F(DiskMonitorTest, ATargetIsPublishedWithItsDiskAndItsProbe) {
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  monitor.AddTarget("repository", dir_.path());
  ASSERT_TRUE(Eventually([&] {
    return StateOf("data") == "healthy" && StateOf("repository") == "healthy" &&
           board_.Get()->disks.size() == 1 && board_.Get()->disks[0].smart.supported;
  }));
  const auto status = board_.Get();
  const observe::DiskSection& disk = status->disks[0];
  EXPECT_EQ(disk.device, "nvme0n1");
  EXPECT_THAT(disk.roles, ElementsAre("data", "repository"));
  EXPECT_THAT(disk.stack, ElementsAre("nvme0n1"));
  EXPECT_EQ(disk.mount_point, "/");
  EXPECT_EQ(disk.filesystem, "xfs");
  EXPECT_EQ(disk.model, "Test Drive");
  EXPECT_EQ(disk.size_bytes, 2048u * 512);
  EXPECT_GT(disk.filesystem_size_bytes, disk.filesystem_free_bytes);
  EXPECT_EQ(disk.smart.temperature_celsius, 27);
  EXPECT_EQ(disk.smart.media_errors, 2u);
  ASSERT_EQ(disk.probes.size(), 2u);
  EXPECT_EQ(disk.probes[0].path, dir_.path());
  EXPECT_GT(disk.probes[0].read.count, 0u);
  EXPECT_NE(disk.time.captured_at, absl::InfinitePast());
  EXPECT_THAT(status->faults, IsEmpty());
  EXPECT_THAT(events_.types(), IsEmpty());
  EXPECT_EQ(monitor.DiskOf("data"), "nvme0n1");
  EXPECT_EQ(monitor.DirectoryOf("data"), dir_.path());
}

TEST_F(DiskMonitorTest, AStallIsAFaultWithAnEventAndEndsWithTheCompletions) {
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(
      Eventually([&] { return StateOf("data") == "healthy" && monitor.DiskOf("data") != ""; }));
  Hang(true);
  ASSERT_TRUE(Eventually([&] { return StateOf("data") == "stalled"; }));
  EXPECT_TRUE(HasFault("stalled/nvme0n1"));
  const auto status = board_.Get();
  EXPECT_THAT(status->faults.begin()->second.message, HasSubstr("does not answer"));
  EXPECT_GE(*status->disks[0].probes[0].oldest_outstanding, absl::Milliseconds(100));
  EXPECT_THAT(events_.types(), Contains("disk.stalled"));
  Hang(false);
  ASSERT_TRUE(Eventually([&] { return StateOf("data") == "healthy"; }));
  EXPECT_THAT(board_.Get()->faults, IsEmpty());
  EXPECT_EQ(events_.types().back(), "disk.recovered");
}

TEST_F(DiskMonitorTest, AnErrorIsAFaultOfItsClass) {
  DiskMonitor& monitor = Start();
  monitor.AddTarget("wal", dir_.path());
  ASSERT_TRUE(
      Eventually([&] { return StateOf("wal") == "healthy" && monitor.DiskOf("wal") != ""; }));
  scripts_[0]->FailWrites(-EIO);
  ASSERT_TRUE(Eventually([&] { return HasFault("write_error/nvme0n1"); }));
  scripts_[0]->FailWrites(-ENODEV);
  // The errors before it were the removal's.
  ASSERT_TRUE(
      Eventually([&] { return HasFault("gone/nvme0n1") && !HasFault("write_error/nvme0n1"); }));
  scripts_[0]->FailWrites(DeviceScript::kGood);
  ASSERT_TRUE(
      Eventually([&] { return StateOf("wal") == "healthy" && board_.Get()->faults.empty(); }));
  scripts_[0]->FailWrites(-EIO);
  ASSERT_TRUE(Eventually([&] { return HasFault("write_error/nvme0n1"); }));
  scripts_[0]->FailWrites(DeviceScript::kGood);
  ASSERT_TRUE(Eventually([&] { return StateOf("wal") == "healthy"; }));
  EXPECT_TRUE(HasFault("write_error/nvme0n1")) << "what was lost is still lost";
  EXPECT_THAT(events_.types(), Contains("disk.faulted"));
}

TEST_F(DiskMonitorTest, RemovingATargetClearsItsFaultsAndItsSection) {
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(Eventually([&] { return StateOf("data") == "healthy"; }));
  Hang(true);
  ASSERT_TRUE(Eventually([&] { return StateOf("data") == "stalled"; }));
  monitor.RemoveTarget("data");
  EXPECT_THAT(board_.Get()->faults, IsEmpty());
  EXPECT_THAT(monitor.roles(), IsEmpty());
  ASSERT_TRUE(Eventually([&] { return board_.Get()->disks.empty(); }));
  EXPECT_THAT(monitor.FindProber("data"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST_F(DiskMonitorTest, ADirectoryThatIsNotProbedForAWhileKeepsItsDiskInView) {
  helper_->Set(kReliabilityDegraded, absl::OkStatus());
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(
      Eventually([&] { return StateOf("data") == "healthy" && HasFault("unreliable/nvme0n1"); }));
  Hang(true);
  ASSERT_TRUE(Eventually([&] { return StateOf("data") == "stalled"; }));
  monitor.StopProbing("data");
  EXPECT_FALSE(HasFault("stalled/nvme0n1"));
  EXPECT_EQ(monitor.DiskOf("data"), "nvme0n1");
  EXPECT_THAT(monitor.FindProber("data"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is not probed")));
  // The drive goes on being asked.
  helper_->Set(kMediaReadOnly | kReliabilityDegraded, absl::OkStatus());
  ASSERT_TRUE(Eventually([&] { return HasFault("read_only/nvme0n1"); }));
  EXPECT_TRUE(HasFault("unreliable/nvme0n1"));
  monitor.AddTarget("data", dir_.path());
  EXPECT_TRUE(Eventually([&] { return StateOf("data") == "healthy"; }));
}

TEST_F(DiskMonitorTest, DirectoriesOnOneFileSystemShareAProber) {
  DiskMonitor& monitor = Start();
  for (const char* role : {"wal", "data", "repository"}) monitor.AddTarget(role, dir_.path());
  const auto shared = [&](const char* role) {
    const auto one = monitor.FindProber("data"), other = monitor.FindProber(role);
    return one.ok() && other.ok() && *one == *other;
  };
  ASSERT_TRUE(Eventually([&] { return shared("wal") && shared("repository"); }));
  scripts_[1]->Hang(true);  // of "data", the first by name
  for (const char* role : {"data", "wal", "repository"}) {
    ASSERT_TRUE(Eventually([&] { return StateOf(role) == "stalled"; })) << role;
  }
  EXPECT_TRUE(HasFault("stalled/nvme0n1"));
  scripts_[1]->Hang(false);
  ASSERT_TRUE(
      Eventually([&] { return StateOf("wal") == "healthy" && !HasFault("stalled/nvme0n1"); }));
  EXPECT_EQ(scripts_.size(), 3u);
  // The lender goes: the others probe for themselves, then share again.
  monitor.RemoveTarget("data");
  EXPECT_EQ(scripts_.size(), 5u);
  ASSERT_TRUE(Eventually([&] {
    const auto one = monitor.FindProber("repository"), other = monitor.FindProber("wal");
    return one.ok() && other.ok() && *one == *other && StateOf("wal") == "healthy";
  }));
  // A borrower goes: the lender goes on.
  monitor.StopProbing("wal");
  EXPECT_EQ(StateOf("repository"), "healthy");
  monitor.AddTarget("wal", dir_.path());
  ASSERT_TRUE(Eventually([&] { return StateOf("wal") == "healthy"; }));
}

TEST_F(DiskMonitorTest, ALenderThatBorrowsTakesItsBorrowersAlong) {
  DiskMonitor& monitor = Start();
  for (const char* role : {"repository", "wal"}) monitor.AddTarget(role, dir_.path());
  const auto shared = [&](const char* role, const char* other) {
    return *monitor.FindProber(role) == *monitor.FindProber(other);
  };
  ASSERT_TRUE(Eventually([&] { return shared("repository", "wal"); }));
  // The first by name comes last.
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(Eventually([&] { return shared("data", "repository"); }));
  EXPECT_TRUE(shared("data", "wal"));
  scripts_[2]->Hang(true);  // of "data"
  for (const char* role : {"data", "wal", "repository"}) {
    ASSERT_TRUE(Eventually([&] { return StateOf(role) == "stalled"; })) << role;
  }
  scripts_[2]->Hang(false);
  ASSERT_TRUE(
      Eventually([&] { return StateOf("wal") == "healthy" && StateOf("data") == "healthy"; }));
}

TEST_F(DiskMonitorTest, AProberThatSeesAFaultIsNotGivenUpForAnother) {
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(Eventually([&] { return StateOf("data") == "healthy"; }));
  fail_next_ = true;
  monitor.AddTarget("wal", dir_.path());
  ASSERT_TRUE(Eventually([&] { return StateOf("wal") == "faulted"; }));
  // Of the drive, or of the role where the drive was not known yet.
  ASSERT_TRUE(Eventually([&] { return !board_.Get()->faults.empty(); }));
  EXPECT_NE(*monitor.FindProber("data"), *monitor.FindProber("wal"));
  fail_next_ = false;
  scripts_[1]->FailWrites(DeviceScript::kGood);
  ASSERT_TRUE(
      Eventually([&] { return *monitor.FindProber("data") == *monitor.FindProber("wal"); }));
  EXPECT_FALSE(board_.Get()->faults.empty()) << "what was lost stays lost";
}

TEST_F(DiskMonitorTest, TheMonitorEndsWhileEveryProbeHangs) {
  DiskMonitor& monitor = Start();
  for (const char* role : {"data", "wal", "tablespace:16385", "repository"}) {
    monitor.AddTarget(role, dir_.path());
  }
  const std::vector<std::string> roles = monitor.roles();
  EXPECT_EQ(roles.size(), 4u);
  const auto all_are = [&](const std::string& state) {
    return std::all_of(roles.begin(), roles.end(),
                       [&](const auto& role) { return StateOf(role) == state; });
  };
  ASSERT_TRUE(Eventually([&] { return all_are("healthy"); }));
  Hang(true);
  ASSERT_TRUE(Eventually([&] { return all_are("stalled"); }));
  const base::MonotonicTime start = base::RealClock().Monotonic();
  monitor_.reset();
  // It waits for them for most of a second; how late a busy machine wakes it up says nothing.
  EXPECT_LT(base::RealClock().Monotonic() - start, absl::Seconds(10));
}

TEST_F(DiskMonitorTest, CriticalWarningsAreFaultsUntilTheyEnd) {
  helper_->Set(kMediaReadOnly | kReliabilityDegraded, absl::OkStatus());
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(
      Eventually([&] { return HasFault("read_only/nvme0n1") && HasFault("unreliable/nvme0n1"); }));
  helper_->Set(kReliabilityDegraded, absl::OkStatus());
  ASSERT_TRUE(Eventually([&] { return !HasFault("read_only/nvme0n1"); }));
  EXPECT_TRUE(HasFault("unreliable/nvme0n1"));
  // An event follows what the status shows.
  for (const char* type : {"disk.fault_confirmed", "disk.fault_cleared"}) {
    EXPECT_TRUE(Eventually([&] {
      const auto types = events_.types();
      return std::ranges::find(types, type) != types.end();
    })) << type;
  }
}

TEST_F(DiskMonitorTest, SmartThatCannotBeReadSaysWhy) {
  helper_->Set(0,
               absl::UnimplementedError("unsupported: open /dev/nvme0: No such file or directory"));
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(Eventually([&] {
    const auto status = board_.Get();
    return !status->disks.empty() && !status->disks[0].smart.supported &&
           status->disks[0].smart.unsupported_reason.find("No such file") != std::string::npos;
  }));
}

TEST_F(DiskMonitorTest, WithoutProbingTheDiskIsStillShown) {
  probe_enabled_ = false;
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(Eventually([&] {
    const auto status = board_.Get();
    return !status->disks.empty() && status->disks[0].device == "nvme0n1";
  }));
  EXPECT_THAT(board_.Get()->disks[0].probes, IsEmpty());
  EXPECT_THAT(monitor.FindProber("data"), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(DiskMonitorTest, AStorageProbeMeasuresAndCanBeCancelled) {
  DiskMonitor& monitor = Start();
  monitor.AddTarget("data", dir_.path());
  ASSERT_TRUE(
      Eventually([&] { return StateOf("data") == "healthy" && monitor.DiskOf("data") != ""; }));
  observe::Progress progress(base::RealClock());
  ASSERT_OK_AND_ASSIGN(
      const auto result,
      RunStorageProbe(monitor, {.role = "data", .reads = 50, .writes = 20}, progress));
  EXPECT_EQ(result.read.count, 50u);
  EXPECT_EQ(result.write.count, 20u);
  EXPECT_EQ(result.device, "nvme0n1");
  EXPECT_EQ(progress.Snapshot().done_bytes, 70u * 4096);
  EXPECT_THAT(RunStorageProbe(monitor, {.role = "wal"}, progress),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("roles now: data")));
  EXPECT_THAT(RunStorageProbe(monitor, {.role = "data", .reads = 1'000'000}, progress),
              StatusIs(absl::StatusCode::kInvalidArgument));
  Hang(true);
  observe::Progress cancelled(base::RealClock());
  cancelled.RequestCancel();
  EXPECT_THAT(RunStorageProbe(monitor, {.role = "data"}, cancelled),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace metal::disk
