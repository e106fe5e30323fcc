#include "agent/disk/smart_watch.h"

#include "agent/disk/disk_report.h"
#include "agent/disk/nvme/smart_log.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kPatience = absl::Milliseconds(500);

observe::SmartSection UnsupportedSmart(std::string reason) {
  observe::SmartSection smart;
  smart.unsupported_reason = std::move(reason);
  return smart;
}

observe::SmartSection SectionOfLog(const SmartLog& log) {
  observe::SmartSection smart;
  smart.supported = true;
  smart.critical_warning = log.critical_warning;
  smart.temperature_celsius = log.temperature_celsius;
  smart.available_spare_percent = log.available_spare_percent;
  smart.available_spare_threshold = log.available_spare_threshold_percent;
  smart.percentage_used = log.percentage_used;
  smart.media_errors = log.media_errors;
  smart.error_log_entries = log.error_log_entries;
  smart.power_on_hours = log.power_on_hours;
  smart.unsafe_shutdowns = log.unsafe_shutdowns;
  smart.bytes_read = log.host_read.value;
  smart.bytes_written = log.host_written.value;
  return smart;
}

}  // namespace

void SmartWatch::Forget(const std::string& disk) {
  serials_.erase(disk);
  {
    base::MutexLock lock(mutex_);
    sections_.erase(disk);
  }
  const auto raised = raised_.extract(disk);
  if (!raised) return;
  for (const std::string& fault_class : raised.mapped()) {
    board_.ClearFault(fault_class, disk);
    Tell("disk.smart_cleared", observe::Severity::kInfo, disk,
         disk + " is not in use any more; its warning " + fault_class + " goes with it");
  }
}

void SmartWatch::ForgetOthers(const std::set<std::string>& names) {
  std::vector<std::string> gone;
  for (const auto& [disk, serial] : serials_) {
    if (!names.contains(disk)) gone.push_back(disk);
  }
  for (const std::string& disk : gone) Forget(disk);
}

void SmartWatch::Refresh(const DiskInfo& disk) {
  const auto known_serial = serials_.find(disk.name);
  if (known_serial != serials_.end() && known_serial->second != disk.serial) Forget(disk.name);
  serials_[disk.name] = disk.serial;
  observe::SmartSection smart = Ask(disk);
  {
    base::MutexLock lock(mutex_);
    observe::SmartSection& known = sections_[disk.name];
    if (!smart.supported && known.supported) {
      known.unsupported_reason = smart.unsupported_reason;
      return;
    }
    known = smart;
  }
  ReflectFaults(disk.name, smart);
}

std::map<std::string, observe::SmartSection> SmartWatch::Sections() {
  base::MutexLock lock(mutex_);
  return sections_;
}

observe::SmartSection SmartWatch::Ask(const DiskInfo& disk) {
  if (disk.nvme_controller.empty()) {
    return UnsupportedSmart(disk.name + " is not an NVMe drive (transport " + disk.transport + ")");
  }
  if (helper_ == nullptr) return UnsupportedSmart("the privileged helper is not running");
  const auto page = helper_->ReadNvmeLog(
      disk.nvme_controller, {.log_id = kSmartLogId, .length = kSmartLogSize}, kPatience);
  if (!page.ok()) return UnsupportedSmart(std::string(page.status().message()));
  const absl::StatusOr<SmartLog> log = DecodeSmartLog(*page);
  if (!log.ok()) return UnsupportedSmart(std::string(log.status().message()));
  observe::SmartSection smart = SectionOfLog(*log);
  smart.time = {.captured_at = clock_.Now(), .monotonic = clock_.Monotonic()};
  return smart;
}

void SmartWatch::ReflectFaults(const std::string& disk, const observe::SmartSection& smart) {
  std::map<std::string, observe::Fault> wanted;
  for (observe::Fault& fault : FaultsOfSmart(disk, smart)) {
    wanted.emplace(fault.fault_class, std::move(fault));
  }
  std::set<std::string>& raised = raised_[disk];
  for (const auto& [fault_class, fault] : wanted) {
    const bool is_new = raised.insert(fault_class).second;
    observe::Fault copy = fault;
    copy.since = clock_.Now();
    board_.RaiseFault(std::move(copy));
    if (is_new) Tell("disk.smart_warning", fault.severity, disk, fault.message);
  }
  std::erase_if(raised, [&](const std::string& fault_class) {
    if (wanted.contains(fault_class)) return false;
    board_.ClearFault(fault_class, disk);
    Tell("disk.smart_cleared", observe::Severity::kInfo, disk,
         disk + " no longer reports the warning " + fault_class);
    return true;
  });
}

void SmartWatch::Tell(const char* type, observe::Severity severity, const std::string& disk,
                      const std::string& message) {
  observe::Event event;
  event.time = absl::InfinitePast();
  event.type = type;
  event.severity = severity;
  event.subject = disk;
  event.message = message;
  events_.Append(std::move(event));
}

}  // namespace metal::disk
