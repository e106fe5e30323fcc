#include "agent/disk/nvme/log_watch.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/disk/nvme/supported_logs.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

// PCI vendors of emulated and cloud drives: Red Hat (QEMU), Amazon, Google, Microsoft, VMware,
// VirtualBox. None has OCP's log.
constexpr uint16_t kVirtualVendors[] = {0x1b36, kAmazonPciVendor, 0x1ae0, 0x1414, 0x15ad, 0x80ee};
constexpr uint32_t kAllNamespaces = 0xffffffff;

bool IsVirtual(const IdentifyController& controller) {
  return std::find(std::begin(kVirtualVendors), std::end(kVirtualVendors), controller.pci_vendor) !=
         std::end(kVirtualVendors);
}

bool IsAnotherDrive(const DriveIdentity& a, const DriveIdentity& b) {
  return a.serial != b.serial || a.model != b.model;
}

}  // namespace

WatchedDrive WatchedDriveOf(const SysRoots& roots, const DiskInfo& disk) {
  WatchedDrive drive;
  drive.disk = disk.name;
  drive.controller = disk.nvme_controller;
  drive.identity = {.model = disk.model,
                    .serial = disk.serial,
                    .wwid = disk.wwid,
                    .firmware = disk.firmware,
                    .size_bytes = disk.size_bytes};
  const auto text = base::ReadFile(fmt::format("{}/class/block/{}/nsid", roots.sys, disk.name));
  uint32_t number = 0;
  if (text.ok() && absl::SimpleAtoi(*text, &number)) drive.name_space = number;
  return drive;
}

LogWatch::LogWatch(PrivilegedHelper* helper, base::Clock& clock, Sink sink, LogWatchOptions options)
    : helper_(helper), clock_(clock), sink_(std::move(sink)), options_(std::move(options)) {}

void LogWatch::Refresh(const WatchedDrive& watched) {
  auto found = drives_.find(watched.disk);
  const DriveIdentity first = found == drives_.end() ? watched.identity : found->second.first;
  if (found != drives_.end() && IsAnotherDrive(found->second.logs.identity, watched.identity)) {
    Withdraw(found->second, "another drive is here now");
    drives_.erase(found);
    found = drives_.end();
  }
  if (found == drives_.end()) {
    found = drives_.emplace(watched.disk, watched.disk).first;
    found->second.first = first;
  }
  Drive& drive = found->second;
  if (drive.logs.identity.firmware != watched.identity.firmware) {  // it may have other logs
    drive.refused.reset();
    drive.lists_its_logs = false;
    drive.asked.clear();
  }
  drive.logs.identity = watched.identity;
  drive.logs.noted = watched.noted ? watched.noted : drive.first;
  drive.logs.name_space_id = watched.name_space;
  DriveLogs before;
  before.smart = drive.logs.smart;
  before.ocp = drive.logs.ocp;
  before.aws = drive.logs.aws;
  const absl::Status read = ReadLogs(watched, drive);
  TellCounters(watched.disk, before, drive.logs);
  // A drive that does not answer says nothing; one that has no logs is still what it is.
  const bool judged = read.ok() || absl::IsUnimplemented(read);
  if (judged) {
    drive.logs.time = clock_.Now();
    drive.logs.monotonic = clock_.Monotonic();
    for (Evidence& evidence : drive.judge.Judge(drive.logs)) sink_(std::move(evidence));
  }
  drive.lost = !read.ok();
  base::MutexLock lock(mutex_);
  reports_[watched.disk] = {.logs = drive.logs, .unavailable = std::string(read.message())};
}

void LogWatch::TellCounters(const std::string& disk, const DriveLogs& before,
                            const DriveLogs& now) const {
  if (!options_.counters) return;
  CounterChanges changes = ChangesOfCounters(before, now);
  if (changes.changes.empty()) return;
  changes.disk = disk;
  changes.serial = now.identity.serial;
  options_.counters(changes);
}

void LogWatch::ForgetOthers(const std::set<std::string>& disks) {
  for (auto drive = drives_.begin(); drive != drives_.end();) {
    if (disks.contains(drive->first)) {
      ++drive;
      continue;
    }
    Withdraw(drive->second, drive->first + " is not in use any more");
    drive = drives_.erase(drive);
  }
  base::MutexLock lock(mutex_);
  std::erase_if(reports_, [&](const auto& each) { return !disks.contains(each.first); });
}

std::map<std::string, DriveReport> LogWatch::Reports() const {
  base::MutexLock lock(mutex_);
  return reports_;
}

void LogWatch::Withdraw(Drive& drive, const std::string& reason) {
  for (Evidence& evidence : drive.judge.Withdraw(reason, clock_.Now())) {
    sink_(std::move(evidence));
  }
}

bool LogWatch::IsDue(const Drive& drive, uint8_t log_id, absl::Duration interval) const {
  if (drive.refused[log_id]) return false;
  const auto asked = drive.asked.find(log_id);
  return asked == drive.asked.end() || clock_.Monotonic() - asked->second >= interval;
}

bool LogWatch::Took(Drive& drive, uint8_t log_id, const absl::Status& status) {
  // The drive, or its time, is not there: everything else waits too, and stays due.
  if (absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status) || absl::IsNotFound(status)) {
    return false;
  }
  drive.asked[log_id] = clock_.Monotonic();
  // It does not have the log, or has another one under this number.
  if (absl::IsUnimplemented(status) || absl::IsInvalidArgument(status)) drive.refused.set(log_id);
  return true;
}

absl::Status LogWatch::ReadLogs(const WatchedDrive& watched, Drive& drive) {
  if (watched.controller.empty()) {
    return base::Error(absl::StatusCode::kUnimplemented, "{} is not an NVMe drive", watched.disk);
  }
  if (helper_ == nullptr) {
    return base::Error(absl::StatusCode::kUnimplemented, "the privileged helper is not running");
  }
  LogReader reader(*helper_, clock_, watched.controller, options_.time);
  METAL_ASSIGN_OR_RETURN(drive.logs.smart, reader.ReadSmart());
  if (!ReadIdentity(watched, reader, drive)) return absl::OkStatus();
  if (!ReadErrors(reader, drive)) return absl::OkStatus();
  ReadOthers(reader, drive);
  return absl::OkStatus();
}

bool LogWatch::ReadIdentity(const WatchedDrive& watched, LogReader& reader, Drive& drive) {
  const bool known = drive.identified && !drive.lost &&
                     clock_.Monotonic() - *drive.identified < options_.identity_interval;
  if (known) return true;
  auto controller = reader.ReadController();
  if (!controller.ok()) return false;
  drive.logs.controller = *std::move(controller);
  if (drive.logs.controller->lists_its_logs &&
      IsDue(drive, kSupportedLogsId, absl::InfiniteDuration())) {
    const auto listed = reader.ReadSupportedLogs();
    if (!Took(drive, kSupportedLogsId, listed.status())) return false;
    // A list without the log that every drive has is none.
    drive.lists_its_logs = listed.ok() && listed->test(kSmartLogId);
    if (drive.lists_its_logs) drive.refused |= ~*listed;
  }
  if (watched.name_space != 0) {
    auto name_space = reader.ReadNamespace(watched.name_space);
    if (name_space.ok()) drive.logs.name_space = *std::move(name_space);
  }
  drive.identified = clock_.Monotonic();
  return true;
}

bool LogWatch::ReadErrors(LogReader& reader, Drive& drive) {
  const uint64_t counted = drive.logs.smart->error_log_entries;
  if (drive.refused[kErrorLogId] || drive.errors_read == counted) return true;
  auto errors = reader.ReadErrors(drive.logs.controller->error_log_entries);
  if (!Took(drive, kErrorLogId, errors.status())) return false;
  drive.errors_read = counted;
  if (errors.ok()) drive.logs.errors = *std::move(errors);
  return true;
}

bool LogWatch::ReadVendors(LogReader& reader, Drive& drive) {
  const IdentifyController& controller = *drive.logs.controller;
  if (controller.pci_vendor == kAmazonPciVendor && IsDue(drive, kAwsLogId, absl::ZeroDuration())) {
    const uint32_t name_space =
        drive.logs.name_space_id == 0 ? kAllNamespaces : drive.logs.name_space_id;
    auto aws = reader.ReadAws(name_space);
    if (!Took(drive, kAwsLogId, aws.status())) return false;
    if (aws.ok()) drive.logs.aws = *std::move(aws);
  }
  const bool may_have_ocp =
      drive.lists_its_logs || (options_.unlisted_logs && !IsVirtual(controller));
  if (may_have_ocp && IsDue(drive, kOcpLogId, options_.vendor_interval)) {
    auto ocp = reader.ReadOcp();
    if (!Took(drive, kOcpLogId, ocp.status())) return false;
    if (ocp.ok()) drive.logs.ocp = *std::move(ocp);
  }
  return true;
}

void LogWatch::ReadOthers(LogReader& reader, Drive& drive) {
  if (!ReadVendors(reader, drive)) return;
  const IdentifyController& controller = *drive.logs.controller;
  if (controller.can_self_test && IsDue(drive, kSelfTestLogId, options_.self_test_interval)) {
    auto tests = reader.ReadSelfTests();
    if (!Took(drive, kSelfTestLogId, tests.status())) return;
    if (tests.ok()) drive.logs.self_tests = *std::move(tests);
  }
  if (controller.has_persistent_event_log && controller.has_log_offsets &&
      IsDue(drive, kPersistentEventLogId, options_.events_interval)) {
    auto events = reader.ReadPersistentEvents();
    if (!Took(drive, kPersistentEventLogId, events.status())) return;
    if (events.ok()) drive.logs.events = *std::move(events);
  }
}

}  // namespace metal::disk
