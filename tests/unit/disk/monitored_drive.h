// A disk monitor over one emulated NVMe drive: its sysfs is a folder, its SMART page and its probes
// are the test's. Threading: as DiskMonitor.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "agent/disk/disk_monitor.h"
#include "agent/disk/nvme/smart_log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/refusing_privileges.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/disk/eventually.h"
#include "tests/unit/disk/scripted_probe_device.h"

namespace metal::disk {

// A drive whose SMART page the test writes.
class FakeDriveHelper final : public metal::testing::RefusingPrivileges {
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

class MonitoredDrive : public ::testing::Test {
 protected:
  MonitoredDrive() {
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
  ~MonitoredDrive() override { Hang(false); }

  DiskMonitor& Start() {
    DiskMonitorOptions options;
    options.roots = {.proc = dir_.File("proc"), .sys = dir_.File("sys"), .dev = dir_.File("dev")};
    options.node_id = "db1";
    options.record_path = record_path_;
    options.learned_path = learned_path_;
    options.learned_interval = absl::Milliseconds(50);
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
      scripts_.push_back(std::make_shared<metal::testing::DeviceScript>());
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
  bool WasTold(const std::string& type) {
    const auto types = events_.types();
    return std::ranges::find(types, type) != types.end();
  }
  bool HasFault(const std::string& key) { return board_.Get()->faults.contains(key); }

  bool probe_enabled_ = true;
  bool fail_next_ = false;  // the next devices fail each write
  std::string record_path_, learned_path_;
  metal::testing::TempDir dir_;
  observe::StatusBoard board_{base::RealClock()};
  metal::testing::RecordedEvents events_;
  std::unique_ptr<FakeDriveHelper> helper_ = std::make_unique<FakeDriveHelper>();
  std::vector<std::shared_ptr<metal::testing::DeviceScript>> scripts_;  // one for each prober
  std::unique_ptr<DiskMonitor> monitor_;
};

}  // namespace metal::disk
