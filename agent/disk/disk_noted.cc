// What the monitor keeps between two runs of the agent: which drives lie under each role, so that
// one that was changed meanwhile is named and never taken for the old one, what operators have
// acknowledged, and what the slow detectors learned. The inventory thread writes both files, and
// the first one whoever acknowledges.
#include <algorithm>
#include <filesystem>
#include <system_error>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/disk/disk_monitor_impl.h"
#include "agent/observe/emit.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kLoadPatience = absl::Milliseconds(200);
constexpr size_t kLargestLearned = 8 << 20;
constexpr absl::Duration kCheckPatience = absl::Seconds(2);
constexpr absl::Duration kAcknowledgePatience = absl::Seconds(5);

bool IsKnown(const DriveIdentity& drive) { return !drive.serial.empty() || !drive.wwid.empty(); }

// Whether both can be of one drive: what one of them does not know is no difference.
bool IsSame(const DriveIdentity& a, const DriveIdentity& b) {
  const auto differ = [](const std::string& x, const std::string& y) {
    return !x.empty() && !y.empty() && x != y;
  };
  return !differ(a.serial, b.serial) && !differ(a.wwid, b.wwid) && !differ(a.model, b.model);
}

bool Holds(const std::vector<DriveIdentity>& drives, const DriveIdentity& drive) {
  return std::ranges::any_of(drives, [&](const auto& each) { return IsSame(each, drive); });
}

DriveIdentity IdentityOf(const DiskInfo& disk) {
  return {.model = disk.model,
          .serial = disk.serial,
          .wwid = disk.wwid,
          .firmware = disk.firmware,
          .size_bytes = disk.size_bytes};
}

std::string NamesOf(const std::vector<DriveIdentity>& drives) {
  std::string names;
  for (const DriveIdentity& each : drives) {
    names += (names.empty() ? "" : ", ") + each.model + " " +
             (each.serial.empty() ? each.wwid : each.serial);
  }
  return names;
}

// A serial number tells by itself: kernels differ in which world-wide names they believe.
bool MayBeSame(const DriveIdentity& a, const DriveIdentity& b) {
  return (!a.serial.empty() && a.serial == b.serial && a.model == b.model) || IsSame(a, b);
}

bool SharesADrive(const std::vector<DriveIdentity>& a, const std::vector<DriveIdentity>& b) {
  return std::ranges::any_of(a, [&](const auto& one) {
    return std::ranges::any_of(b, [&](const auto& other) { return MayBeSame(one, other); });
  });
}

// A volume that has grown, or whose member was replaced, is the same one.
absl::Status CompareDrives(const SysRoots& roots, const std::string& data_directory,
                           const std::map<std::string, NotedDrives>& noted) {
  const std::pair<std::string, std::string> places[] = {{"data", data_directory},
                                                        {"wal", data_directory + "/pg_wal"}};
  for (const auto& [role, place] : places) {
    const auto found = noted.find(role);
    if (found == noted.end()) continue;
    std::error_code none, noted_none;
    const auto path = std::filesystem::canonical(place, none);
    const auto before = std::filesystem::canonical(found->second.directory, noted_none);
    if (none || noted_none || path != before) continue;  // not there, or another database's
    const auto stack = ReadStorageStack(roots, path.string());
    if (!stack.ok()) continue;
    std::vector<DriveIdentity> present;
    for (const DiskInfo& disk : stack->disks) {
      if (IsKnown(IdentityOf(disk))) present.push_back(IdentityOf(disk));
    }
    if (present.empty() || SharesADrive(present, found->second.drives)) continue;
    const std::string now = NamesOf(present), was = NamesOf(found->second.drives);
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "{} ({}) lies on {}, and was on {}. HINT: put the drive back; or, if {} is the "
                    "right one, metalctl disk acknowledge wrong_device, and start PostgreSQL",
                    place, role, now, was, now),
        {"WRONG_DEVICE", {{"role", role}, {"serial", present.front().serial}, {"noted", was}}});
  }
  return absl::OkStatus();
}

}  // namespace

void DiskMonitor::Impl::LoadRecord() {
  {
    base::MutexLock lock(mutex_);
    if (record_loaded_) return;
  }
  absl::StatusOr<DiskRecord> record = record_file_.Load(kLoadPatience);
  if (absl::IsDeadlineExceeded(record.status())) return;
  if (!record.ok()) {
    observe::Emit(events_, observe::Severity::kError, "disk.record_lost", options_.record_path,
                  fmt::format("what was noted of the drives, and of acknowledged faults, cannot be "
                              "read and begins anew: {}. HINT: compare the serial numbers of "
                              "metalctl disk health with the inventory",
                              std::string(record.status().message())),
                  {});
    record = DiskRecord();
  }
  desk_.Restore(record->acknowledged);
  base::MutexLock lock(mutex_);
  noted_ = record->drives;
  stored_ = *std::move(record);
  record_loaded_ = true;
  changed_.NotifyAll();
}

void DiskMonitor::Impl::LoadLearned() {
  const std::string& path = options_.learned_path;
  const auto text = learned_load_.Run(
      "learned-drives", [path] { return base::ReadFile(path, kLargestLearned); }, kLoadPatience);
  if (!text) return;
  absl::StatusOr<LearnedDrives> learned = LearnedDrives();
  if (text->ok()) learned = DecodeLearned(**text);
  const absl::Status read = absl::IsNotFound(text->status()) ? absl::OkStatus() : text->status();
  if ((!read.ok() || !learned.ok()) && !learned_lost_told_) {
    learned_lost_told_ = true;
    const absl::Status& why = read.ok() ? learned.status() : read;
    observe::Emit(events_, observe::Severity::kWarning, "disk.learned_lost", path,
                  fmt::format("what was learned of the drives' normal latency cannot be read: for "
                              "half an hour none is told to be slow: {}",
                              std::string(why.message())),
                  {});
  }
  if (!read.ok()) return;  // tried again, and nothing is written over it
  learned_kept_ = clock_.Monotonic();
  if (learned.ok()) slow_.Recall(*learned);
}

void DiskMonitor::Impl::KeepLearned() {
  if (options_.learned_path.empty()) return;
  if (!learned_kept_) return LoadLearned();
  const base::MonotonicTime now = clock_.Monotonic();
  if (now - *learned_kept_ < options_.learned_interval) return;
  learned_kept_ = now;
  const auto saved = learned_save_.Run(
      "learned-drives",
      [path = options_.learned_path, text = EncodeLearned(slow_.Learned(clock_.Now()))] {
        return base::WriteFileDurably(path, text, 0600);
      },
      kLoadPatience);
  if (saved && !saved->ok()) {
    base::LogWarning("event=disk.learned_not_kept path={} message=\"{}\"", options_.learned_path,
                     std::string(saved->message()));
  }
}

void DiskMonitor::Impl::NoteDrives() {
  base::MutexLock lock(mutex_);
  if (!record_loaded_) return;
  for (const auto& [role, target] : targets_) NoteDrivesOf(role, *target);
}

void DiskMonitor::Impl::NoteDrivesOf(const std::string& role, const Target& target) {
  if (!target.stack || target.stack->disks.empty()) return;
  NotedDrives now{.directory = target.directory, .drives = {}};
  for (const DiskInfo& disk : target.stack->disks) {
    if (IsKnown(IdentityOf(disk))) now.drives.push_back(IdentityOf(disk));
  }
  if (now.drives.empty()) return;  // a drive without a name is nobody's double
  const auto noted = noted_.find(role);
  const bool moved = noted != noted_.end() && noted->second.directory != target.directory;
  if (noted != noted_.end() && !moved && !note_anew_.contains(role)) return;
  note_anew_.erase(role);
  const std::string before = noted == noted_.end() ? "" : NamesOf(noted->second.drives);
  if (!before.empty() && before != NamesOf(now.drives)) {
    observe::Emit(events_, observe::Severity::kInfo, "disk.drive_noted", role,
                  fmt::format("the drive of {} is {} from now on, it was {}", role,
                              NamesOf(now.drives), before),
                  {{"before", before}, {"after", NamesOf(now.drives)}});
  }
  noted_[role] = std::move(now);
}

std::map<std::string, DriveIdentity> DiskMonitor::Impl::ExpectedDrives() {
  std::map<std::string, DriveIdentity> expected;
  for (const auto& [role, target] : targets_) {
    const auto noted = noted_.find(role);
    if (!target->stack || noted == noted_.end() || noted->second.directory != target->directory) {
      continue;
    }
    std::vector<DriveIdentity> missing = noted->second.drives;
    for (const DiskInfo& disk : target->stack->disks) {
      std::erase_if(missing, [&](const auto& each) { return IsSame(each, IdentityOf(disk)); });
    }
    for (const DiskInfo& disk : target->stack->disks) {
      const DriveIdentity present = IdentityOf(disk);
      if (!IsKnown(present)) continue;
      if (!Holds(noted->second.drives, present)) {
        if (!missing.empty()) expected[disk.name] = missing.front();
        continue;
      }
      const auto same = std::ranges::find_if(
          noted->second.drives, [&](const auto& each) { return IsSame(each, present); });
      expected.try_emplace(disk.name, *same);
    }
  }
  return expected;
}

absl::Status DiskMonitor::Impl::CheckDrives(const std::string& data_directory) {
  const base::MonotonicTime deadline = clock_.Monotonic() + kCheckPatience;
  std::map<std::string, NotedDrives> noted;
  {
    base::MutexLock lock(mutex_);
    changed_.WaitFor(mutex_, kCheckPatience,
                     [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_ || record_loaded_; });
    for (const auto& [role, drives] : noted_) {
      if (!note_anew_.contains(role)) noted[role] = drives;
    }
  }
  const auto checked = check_calls_.Run<absl::Status>(
      "check-drives",
      [roots = options_.roots, data_directory, noted] {
        return CompareDrives(roots, data_directory, noted);
      },
      std::max(deadline - clock_.Monotonic(), absl::ZeroDuration()));
  return checked.value_or(absl::OkStatus());
}

absl::Status DiskMonitor::Impl::SaveRecord(absl::Duration patience) {
  DiskRecord record;
  uint64_t version = 0;
  {
    base::MutexLock lock(mutex_);
    if (!record_loaded_) {
      return base::Error(absl::StatusCode::kUnavailable,
                         "{} was not read yet: its disk does not answer. HINT: try again",
                         options_.record_path);
    }
    record = {.drives = noted_, .acknowledged = desk_.acknowledged()};
    if (record == stored_) return absl::OkStatus();
    version = ++record_version_;
  }
  METAL_RETURN_IF_ERROR(record_file_.Save(record, version, patience));
  base::MutexLock lock(mutex_);
  if (version == record_version_) stored_ = std::move(record);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<observe::Fault>> DiskMonitor::Impl::Acknowledge(
    const AcknowledgeRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::vector<observe::Fault> faults, desk_.Acknowledge(request));
  {
    base::MutexLock lock(mutex_);
    for (const observe::Fault& fault : faults) {
      if (fault.fault_class != FaultClassName(FaultClass::kWrongDevice)) continue;
      note_anew_.insert(fault.disk->roles.begin(), fault.disk->roles.end());
    }
  }
  NoteDrives();
  const absl::Status stored = SaveRecord(kAcknowledgePatience);
  if (!stored.ok()) {
    desk_.Withdraw(faults);
    return base::Annotate(stored, "acknowledge a fault");
  }
  for (const observe::Fault& fault : faults) {
    if (fault.fault_class == FaultClassName(FaultClass::kSlow)) slow_.Forget(fault.disk->device);
  }
  return faults;
}

void DiskMonitor::Impl::NoteDrivesAnew() {
  base::MutexLock lock(mutex_);
  for (const auto& [role, noted] : noted_) {
    if (role != "repository") note_anew_.insert(role);
  }
  inventory_due_ = true;
  changed_.NotifyAll();
}

}  // namespace metal::disk
