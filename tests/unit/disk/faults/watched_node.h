// WatchedNode: a node with one NVMe drive under its role "data", all sources that watch it, and the
// desk that weighs what they say. A test gives the sources what they would read on a host: lines,
// messages, files of sysfs, pages of logs, results of I/O.
// Threading: not thread-safe; time passes when a test lets it.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/file.h"
#include "agent/base/kernel_record.h"
#include "agent/base/units.h"
#include "agent/disk/faults/fault_desk.h"
#include "agent/disk/nvme/log_watch.h"
#include "agent/disk/probe_block.h"
#include "agent/disk/probe_evidence.h"
#include "agent/disk/slow/slow_watch.h"
#include "agent/disk/sources/block_stat.h"
#include "agent/disk/sources/filesystem.h"
#include "agent/disk/sources/kernel_log.h"
#include "agent/disk/sources/postgres_log.h"
#include "agent/disk/sources/sysfs_watch.h"
#include "agent/disk/sources/uevent.h"
#include "agent/disk/space/space_watch.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/disk/nvme/scripted_drive.h"

namespace metal::testing {

class WatchedNode {
 public:
  static constexpr char kFunction[] = "sys/devices/pci0000:00/0000:00:1c.0/0000:3b:00.0/";
  static constexpr char kDisk[] = "sys/class/block/nvme0n1/";
  static constexpr char kRetries[] = "sys/fs/xfs/nvme0n1p1/error/metadata/EIO/";

  WatchedNode() {
    stack_.layers = {"nvme0n1p1", "nvme0n1"};
    stack_.disks.resize(1);
    stack_.disks[0].name = "nvme0n1";
    stack_.disks[0].nvme_controller = "nvme0";
    stack_.disks[0].serial = drive_.identity.serial;
    stack_.disks[0].logical_block_size = 4096;
    namespace fs = std::filesystem;
    Write(kFunction, "nvme/nvme0/state", "live\n");
    fs::create_directories(dir_.File("sys/class/nvme"));
    fs::create_directory_symlink(dir_.File(std::string(kFunction) + "nvme/nvme0"),
                                 dir_.File("sys/class/nvme/nvme0"));
    fs::create_directory_symlink(dir_.File(kFunction),
                                 dir_.File(std::string(kFunction) + "nvme/nvme0/device"));
    for (const char* end : {"current", "max"}) {
      Write(kFunction, fmt::format("{}_link_speed", end), "16.0 GT/s PCIe\n");
      Write(kFunction, fmt::format("{}_link_width", end), "4\n");
    }
    Write(kFunction, "aer_dev_correctable", "TOTAL_ERR_COR 3\n");
    Mount("rw,inode64");
    PlugIn();
    names_.AddStack(roots_, stack_);
    Own(drive_.identity.serial);
    LookAtSysfs();
  }

  // ---- what is on the board ----
  std::vector<observe::Fault> Faults() {
    std::vector<observe::Fault> faults;
    const auto status = board_.Get();
    for (const auto& [key, fault] : status->faults) faults.push_back(fault);
    return faults;
  }
  void Pass(absl::Duration time) {
    clock_.Advance(time);
    desk_.Tick();
  }
  // The inventory found this drive under the node's directory.
  void Own(const std::string& serial) {
    desk_.SetDisks({{"nvme0n1", {.serial = serial, .path = "/dev/nvme0n1", .roles = {"data"}}}});
  }

  // ---- the kernel ----
  void KernelSays(const std::string& line) {
    const auto record = base::ParseKernelRecord(fmt::format("3,{},1,-;{}\n", ++sequence_, line));
    ASSERT_TRUE(record.has_value());
    disk::Findings findings;
    kernel_log_.OnRecord(*record, names_, Now(), findings);
    Give(std::move(findings.evidence));
  }
  // `device`: under the drive's PCIe function; `value`: "KEY=value".
  void KernelTells(const std::string& action, const std::string& device,
                   const std::string& subsystem, const std::string& value = "X=1") {
    std::string message = action + "@/devices/pci0000:00/0000:00:1c.0/0000:3b:00.0/nvme/" + device;
    for (const std::string& each : {"SUBSYSTEM=" + subsystem, value}) message += '\0' + each;
    const auto event = disk::ParseUevent(message);
    ASSERT_TRUE(event.has_value());
    const auto verdict = disk::JudgeUevent(*event, names_, clock_.Now());
    ASSERT_TRUE(verdict && verdict->evidence);
    desk_.Take(*verdict->evidence);
  }
  void Write(const std::string& directory, const std::string& name, const std::string& text) {
    dir_.Write(directory + name, text);
  }
  void Pull() { std::filesystem::remove_all(dir_.File(kDisk)); }
  void PlugIn(const std::string& serial = "METAL0001") {
    Write(kDisk, "size", "2097152\n");
    Write(kDisk, "ro", "0\n");
    Write(kDisk, "serial", serial + "\n");
  }
  void Mount(const std::string& options) {
    Write("proc/self/", "mountinfo",
          "30 22 259:1 / /data rw,relatime - xfs /dev/nvme0n1p1 " + options + "\n");
  }
  // At the drive, its link and its file system.
  void LookAtSysfs() {
    const disk::DiskSysfs look = disk::ReadDiskSysfs(roots_, "nvme0n1", "nvme0");
    Give(sysfs_.Observe(look, /*under_load=*/true, clock_.Now()));
    const auto mounts = base::ReadFile(roots_.proc + "/self/mountinfo");
    ASSERT_TRUE(mounts.ok());
    Give(filesystem_.Observe(disk::FindMountState(*mounts, 259, 1),
                             disk::ReadXfsRetries(roots_, "nvme0n1p1"), clock_.Now()));
  }
  // A second of /sys/block/X/stat.
  void Sample(const std::string& stat, const std::string& inflight) {
    clock_.Advance(absl::Seconds(1));
    const auto parsed = disk::ParseBlockStat(stat);
    ASSERT_TRUE(parsed.has_value());
    const auto evidence = block_stat_.Observe(*parsed, disk::ParseInflight(inflight),
                                              clock_.Monotonic(), clock_.Now());
    if (evidence) desk_.Take(*evidence);
  }

  // ---- the drive: its logs, some time after the last look ----
  void AskDrive(absl::Duration later = absl::Seconds(10)) {
    clock_.Advance(later);
    logs_.Refresh(drive_);
  }

  // ---- probes ----
  // One came back with what the kernel gives: a number of bytes, or −errno.
  void ProbeEnds(bool is_write, int32_t result) {
    const disk::ProbeOutcome outcome =
        disk::ClassifyProbeResult(is_write, result, disk::kProbeBlockSize);
    EXPECT_FALSE(outcome.ok);
    ProbeFails(outcome.fault, outcome.result);
  }
  // One read a block that was written as `written`, and found another stamp, or a bit that is not
  // it.
  void ProbeReads(const disk::ProbeStamp& written, const disk::ProbeStamp& found,
                  bool flip_a_bit = false) {
    std::array<std::byte, disk::kProbeBlockSize> block;
    disk::StampBlock(found, block);
    if (flip_a_bit) block[1000] ^= std::byte{1};
    const auto problem = disk::CheckBlock(written, block);
    ASSERT_TRUE(problem.has_value());
    ProbeFails(problem->lost_write ? disk::ProbeFault::kLostWrite : disk::ProbeFault::kCorruption,
               disk::kProbeBlockSize);
  }
  void ProbeHangs(absl::Duration age) {
    probes_.oldest_outstanding = age;
    JudgeProbes();
  }
  void ProbesAreLate(uint64_t count) {
    probes_.late += count;
    probes_.late_in_a_row += count;
    probes_.on_time_in_a_row = 0;
    JudgeProbes();
  }
  void ProbesWork(uint64_t count = 20) {
    probes_.oldest_outstanding.reset();
    probes_.on_time += count;
    probes_.on_time_in_a_row += count;
    probes_.late_in_a_row = 0;
    JudgeProbes();
  }

  // ---- the server, the file system's room, the shard ----
  void PostgresSays(const std::string& line) {
    disk::Findings findings;
    postgres_.OnLine(line, {"data"}, Now(), findings);
    Give(std::move(findings.evidence));
  }
  void PostgresCounts(int64_t checksum_failures) {
    if (auto evidence = checksums_.Observe(checksum_failures, clock_.Now())) desk_.Take(*evidence);
  }
  void FilesystemReports(int error_number) {
    desk_.Take(disk::JudgeFilesystemError({.error_number = error_number, .count = 1},
                                          filesystem_id_, clock_.Now()));
  }
  void Room(uint64_t free_bytes) {
    constexpr uint64_t kSize = 1000 * base::kGiB;
    disk::RoomView view{.role = "data", .device = "nvme0n1", .mount_point = "/data", .room = {}};
    view.room = {.id = 1,
                 .size_bytes = kSize,
                 .used_bytes = kSize - free_bytes,
                 .free_bytes = free_bytes,
                 .inodes = 1'000'000,
                 .free_inodes = 900'000};
    Give(space_.Observe({view}, clock_.Now()).evidence);
  }
  // Seconds of probes with this latency, at the same load; the other members have no delay.
  void Answer(int seconds, absl::Duration latency, bool with_peers = true) {
    for (int i = 0; i < seconds; ++i) {
      clock_.Advance(absl::Seconds(1));
      if (with_peers) slow_.SetPeers({{"b", "data", {}}, {"c", "data", {}}}, clock_.Monotonic());
      const absl::Duration each = latency * (1 + 0.02 * (i % 5));
      slow_.Observe({.disk = "nvme0n1",
                     .drive = "Example SSD METAL0001",
                     .roles = {"data"},
                     .latencies = {each, each * 0.9, each * 2},
                     .bytes_per_second = 50e6},
                    clock_.Monotonic());
    }
  }

  SimulatedClock clock_;
  RecordedEvents events_;
  ScriptedDrive helper_{clock_};
  disk::WatchedDrive drive_{.disk = "nvme0n1",
                            .controller = "nvme0",
                            .identity = {.model = "Example SSD",
                                         .serial = "METAL0001",
                                         .firmware = "EX1",
                                         .size_bytes = 1 << 30},
                            .name_space = 1,
                            .noted = {}};

 private:
  disk::KernelLogJudge::Now Now() {
    return {.time = clock_.Now(), .monotonic = clock_.Monotonic()};
  }
  void Give(std::vector<disk::Evidence> evidence) {
    for (disk::Evidence& each : evidence) desk_.Take(std::move(each));
  }
  void ProbeFails(disk::ProbeFault fault, int32_t result) {
    ++probes_.errors;
    probes_.on_time_in_a_row = probes_.late_in_a_row = 0;
    probes_.last_fault = fault;
    probes_.last_result = result;
    JudgeProbes();
  }
  // As the supervisor of the monitor does.
  void JudgeProbes() {
    machine_.Observe(probes_, clock_.Monotonic());
    disk::TargetView view;
    view.role = "data";
    view.directory = "/data";
    view.state = machine_.state();
    view.fault = machine_.fault();
    view.last_result = probes_.last_result;
    view.state_since = clock_.Now();
    view.oldest_outstanding = probes_.oldest_outstanding;
    view.stack = stack_;
    const uint64_t told = std::exchange(errors_told_, probes_.errors);
    if (probes_.errors > told) {
      if (auto error = disk::ErrorEvidenceOf(view, probes_.errors - told)) desk_.Take(*error);
    }
    std::optional<disk::Evidence> evidence = disk::EvidenceOf(view);
    const bool other =
        handed_in_ && (!evidence || evidence->fault_class != handed_in_->fault_class);
    if (other) desk_.Take(disk::Withdrawn(*handed_in_, view.state));
    if (evidence) desk_.Take(*evidence);
    handed_in_ = std::move(evidence);
  }

  observe::StatusBoard board_{clock_};
  disk::FaultDesk desk_{board_, events_, clock_};
  TempDir dir_;
  const disk::SysRoots roots_{
      .proc = dir_.File("proc"), .sys = dir_.File("sys"), .dev = dir_.File("dev")};
  disk::StorageStack stack_;
  disk::DiskNames names_;
  uint64_t sequence_ = 0;
  disk::KernelLogJudge kernel_log_;
  disk::SysfsJudge sysfs_{"nvme0n1", "METAL0001"};
  const disk::FilesystemId filesystem_id_{
      .major = 259, .minor = 1, .name = "nvme0n1p1", .type = "xfs", .disk = "nvme0n1"};
  disk::FilesystemJudge filesystem_{filesystem_id_};
  disk::BlockStatJudge block_stat_{"nvme0n1"};
  disk::LogWatch logs_{&helper_, clock_, [this](disk::Evidence e) { desk_.Take(std::move(e)); }};
  disk::ProbeObservation probes_{.phase = disk::ProbePhase::kRunning, .oldest_outstanding = {}};
  disk::ProbeStateMachine machine_{disk::ProbeLimits{}};
  uint64_t errors_told_ = 0;
  std::optional<disk::Evidence> handed_in_;
  disk::PostgresLogJudge postgres_;
  disk::ChecksumJudge checksums_;
  disk::SpaceWatch space_{97};
  disk::SlowWatch slow_{[this](disk::Evidence e) { desk_.Take(std::move(e)); }};
};

}  // namespace metal::testing
