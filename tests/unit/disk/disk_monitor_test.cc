#include "agent/disk/disk_monitor.h"

#include <algorithm>
#include <cerrno>

#include "agent/base/file.h"
#include "agent/disk/nvme/smart_log.h"
#include "agent/disk/probe_run.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/refusing_privileges.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/disk/scripted_probe_device.h"

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

bool Eventually(const std::function<bool()>& condition) {
  base::Clock& clock = base::RealClock();
  const base::MonotonicTime deadline = clock.Monotonic() + absl::Seconds(10);
  while (clock.Monotonic() < deadline) {
    if (condition()) return true;
    clock.Sleep(absl::Milliseconds(2));
  }
  return false;
}

// A drive whose SMART page the test writes.
class FakeHelper final : public metal::testing::RefusingPrivileges {
 public:
  absl::StatusOr<std::vector<std::byte>> ReadNvmeLog(const std::string& controller,
                                                     const NvmeLogRequest& request,
                                                     absl::Duration) override {
    base::MutexLock lock(mutex_);
    EXPECT_EQ(controller, "nvme0");
    if (!status_.ok()) return status_;
    if (request.log_id != kSmartLogId) return absl::DataLossError("NVMe status 0x4109");
    std::vector<std::byte> page(request.length);
    page[0] = static_cast<std::byte>(warning_);
    page[1] = std::byte{300 & 0xff};
    page[2] = std::byte{300 >> 8};
    page[160] = std::byte{2};
    return page;
  }
  void Set(uint8_t warning, absl::Status status) {
    base::MutexLock lock(mutex_);
    warning_ = warning;
    status_ = std::move(status);
  }

 private:
  base::Mutex mutex_;
  uint8_t warning_ = 0;
  absl::Status status_;
};

class DiskMonitorTest : public ::testing::Test {
 protected:
  DiskMonitorTest() {
    // One NVMe drive with one filesystem, mounted where the test's directory is.
    const std::string controller = dir_.File("sys/devices/nvme0");
    dir_.Write("proc/self/mountinfo", "36 1 259:0 / / rw - xfs /dev/nvme0n1 rw\n");
    dir_.Write("sys/devices/nvme0/nvme0n1/size", "2048\n");
    dir_.Write("sys/devices/nvme0/model", "Test Drive\n");
    dir_.Write("sys/dev/block/x", "");
    dir_.Write("sys/class/block/x", "");
    EXPECT_EQ(
        symlink((controller + "/nvme0n1").c_str(), dir_.File("sys/class/block/nvme0n1").c_str()),
        0);
    EXPECT_EQ(symlink((controller + "/nvme0n1").c_str(), dir_.File("sys/dev/block/259:0").c_str()),
              0);
    EXPECT_EQ(symlink(controller.c_str(), (controller + "/nvme0n1/device").c_str()), 0);
  }
  ~DiskMonitorTest() override { Hang(false); }

  DiskMonitor& Start() {
    DiskMonitorOptions options;
    options.roots = {.proc = dir_.File("proc"), .sys = dir_.File("sys"), .dev = dir_.File("dev")};
    options.node_id = "db1";
    options.record_path = record_path_;
    options.schedule.read_interval = absl::Milliseconds(2);
    options.schedule.write_interval = absl::Milliseconds(4);
    options.schedule.reopen_interval = absl::Milliseconds(20);
    options.limits.late_after = absl::Milliseconds(60);
    options.limits.stall_after = absl::Milliseconds(100);
    options.limits.fault_hold = absl::Milliseconds(100);
    options.tick = absl::Milliseconds(5);
    options.publish_interval = absl::Milliseconds(20);
    options.smart_interval = absl::Milliseconds(50);
    options.probe_enabled = probe_enabled_;
    options.make_device = [this](const std::string&) {
      scripts_.push_back(std::make_shared<DeviceScript>());
      if (fail_next_) scripts_.back()->FailWrites(-EIO);
      return std::make_unique<metal::testing::ScriptedProbeDevice>(scripts_.back());
    };
    monitor_ =
        std::make_unique<DiskMonitor>(options, board_, events_, helper_.get(), base::RealClock());
    return *monitor_;
  }

  std::string StateOf(const std::string& role) {
    const auto status = board_.Get();
    for (const auto& disk : status->disks) {
      for (const auto& probe : disk.probes) {
        if (probe.role == role) return probe.state;
      }
    }
    return "absent";
  }
  void Hang(bool on) {
    for (const auto& script : scripts_) script->Hang(on);
  }
  bool HasFault(const std::string& key) { return board_.Get()->faults.contains(key); }

  bool probe_enabled_ = true;
  bool fail_next_ = false;  // the next devices fail each write
  std::string record_path_;
  metal::testing::TempDir dir_;
  observe::StatusBoard board_{base::RealClock()};
  metal::testing::RecordedEvents events_;
  std::unique_ptr<FakeHelper> helper_ = std::make_unique<FakeHelper>();
  std::vector<std::shared_ptr<DeviceScript>> scripts_;  // one for each prober
  std::unique_ptr<DiskMonitor> monitor_;
};

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

TEST_F(DiskMonitorTest, ADriveThatWasChangedWhileTheAgentWasDownIsNamedUntilAnOperatorTakesIt) {
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

TEST_F(DiskMonitorTest, ADatabaseThatIsMadeAnewOnAnotherDriveIsExpectedThere) {
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

TEST_F(DiskMonitorTest, ARecordThatCannotBeReadIsNamedAndBegunAnew) {
  record_path_ = dir_.File("state/disks");
  dir_.Write("state/disks", "stranger\n");
  Start().AddTarget("data", dir_.path());
  EXPECT_TRUE(Eventually([&] {
    const auto types = events_.types();
    return std::ranges::find(types, "disk.record_lost") != types.end();
  }));
}

}  // namespace
}  // namespace metal::disk
