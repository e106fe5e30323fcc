#include "agent/disk/disk_report.h"

#include <algorithm>

#include "agent/disk/nvme/smart_log.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

using observe::Severity;

observe::ProbeSection ProbeOf(const TargetView& target) {
  observe::ProbeSection probe;
  probe.role = target.role;
  probe.path = target.directory;
  probe.state = std::string(ProbeStateName(target.state));
  probe.state_reason = target.reason;
  probe.state_since = target.state_since;
  probe.oldest_outstanding = target.oldest_outstanding;
  probe.read = target.counts.read;
  probe.write = target.counts.write;
  probe.read_errors = target.counts.read_errors;
  probe.write_errors = target.counts.write_errors;
  probe.late = target.counts.late;
  probe.last_error = target.counts.last_error;
  return probe;
}

void DescribeFilesystem(const TargetView& target, observe::DiskSection& section) {
  if (target.stack) {
    section.stack = target.stack->layers;
    section.mount_point = target.stack->mount.mount_point;
    section.filesystem = target.stack->mount.filesystem;
  }
  if (target.space) {
    section.filesystem_size_bytes = target.space->size_bytes;
    section.filesystem_free_bytes = target.space->free_bytes;
    section.filesystem_time = target.space->time;
  }
  section.space = target.room;
}

void DescribeDisk(const DiskInfo& disk, observe::DiskSection& section) {
  section.device = disk.name;
  section.model = disk.model;
  section.serial = disk.serial;
  section.wwid = disk.wwid;
  section.firmware = disk.firmware;
  section.transport = disk.transport;
  section.scheduler = disk.scheduler;
  section.write_cache = disk.write_cache;
  section.size_bytes = disk.size_bytes;
  section.logical_block_size = disk.logical_block_size;
  section.physical_block_size = disk.physical_block_size;
  section.rotational = disk.rotational;
}

observe::DiskSection DisklessSection(const TargetView& target) {
  observe::DiskSection section;
  DescribeFilesystem(target, section);
  section.device = target.stack ? target.stack->mount.filesystem : "unknown";
  section.transport = target.stack ? "none" : "unknown";
  section.smart.unsupported_reason =
      target.stack ? target.stack->note
                   : "the disk under " + target.directory + " is not known yet";
  return section;
}

struct ChangeRow {
  ProbeState state;
  const char* event;
  Severity severity;
};
constexpr ChangeRow kChanges[] = {
    {ProbeState::kUnknown, "disk.unknown", Severity::kWarning},
    {ProbeState::kHealthy, "disk.recovered", Severity::kInfo},
    {ProbeState::kSlow, "disk.slow", Severity::kWarning},
    {ProbeState::kStalled, "disk.stalled", Severity::kCritical},
    {ProbeState::kFaulted, "disk.faulted", Severity::kCritical},
    {ProbeState::kUnsupported, "disk.unsupported", Severity::kInfo},
};

observe::SmartSection SectionOf(const SmartLog& log) {
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

std::string StateText(const TargetView& target) {
  switch (target.state) {
    case ProbeState::kStalled:
      return fmt::format(
          "the device under {} ({}) does not answer: oldest probe is outstanding for {}",
          target.directory, target.role,
          absl::FormatDuration(absl::Trunc(target.oldest_outstanding.value_or(absl::ZeroDuration()),
                                           absl::Milliseconds(1))));
    case ProbeState::kSlow:
      return fmt::format("the device under {} ({}) answers late", target.directory, target.role);
    case ProbeState::kFaulted:
      return fmt::format("the device under {} ({}) failed: {}", target.directory, target.role,
                         target.counts.last_error);
    case ProbeState::kUnsupported:
      return fmt::format("{} ({}) cannot be probed: {}", target.directory, target.role,
                         target.reason);
    case ProbeState::kUnknown:
      return fmt::format("the device under {} ({}) is not being probed: {}", target.directory,
                         target.role, target.reason.empty() ? "no probe was made" : target.reason);
    case ProbeState::kHealthy:
      break;
  }
  return fmt::format("the device under {} ({}) answers in time", target.directory, target.role);
}

std::string TargetSubject(const TargetView& target) {
  if (!target.stack || target.stack->disks.empty()) return target.role;
  return target.stack->disks.front().name + ":" + target.role;
}

std::vector<observe::DiskSection> BuildDiskSections(
    const std::vector<TargetView>& targets,
    const std::map<std::string, observe::SmartSection>& smart_by_disk,
    const observe::SectionTime& time) {
  std::vector<observe::DiskSection> sections;
  const auto add = [&](const TargetView& target, observe::DiskSection fresh) {
    auto same = std::find_if(sections.begin(), sections.end(), [&](const auto& section) {
      return section.device == fresh.device && section.mount_point == fresh.mount_point;
    });
    if (same == sections.end()) same = sections.insert(sections.end(), std::move(fresh));
    same->time = time;
    same->roles.push_back(target.role);
    if (target.probed) same->probes.push_back(ProbeOf(target));
  };
  for (const TargetView& target : targets) {
    if (!target.stack || target.stack->disks.empty()) {
      add(target, DisklessSection(target));
      continue;
    }
    for (const DiskInfo& disk : target.stack->disks) {
      observe::DiskSection section;
      DescribeFilesystem(target, section);
      DescribeDisk(disk, section);
      const auto smart = smart_by_disk.find(disk.name);
      if (smart != smart_by_disk.end()) section.smart = smart->second;
      add(target, std::move(section));
    }
  }
  return sections;
}

std::optional<observe::Event> EventOfChange(const TargetView& target, ProbeState from,
                                            absl::Duration time_in_from) {
  const bool was_quiet = from == ProbeState::kUnknown || from == ProbeState::kUnsupported;
  if (was_quiet && target.state == ProbeState::kHealthy) return std::nullopt;
  if (from == ProbeState::kUnsupported && target.state == ProbeState::kUnknown) return std::nullopt;
  const ChangeRow& row = kChanges[static_cast<size_t>(target.state)];
  observe::Event event;
  event.time = absl::InfinitePast();
  event.type = row.event;
  event.severity = row.severity;
  event.subject = TargetSubject(target);
  event.message = StateText(target);
  event.attributes = {
      {"role", target.role},
      {"path", target.directory},
      {"from", std::string(ProbeStateName(from))},
      {"seconds_in_from", fmt::format("{:.3f}", absl::ToDoubleSeconds(time_in_from))}};
  if (target.state == ProbeState::kFaulted) {
    event.attributes["class"] = std::string(ProbeFaultName(target.fault));
  }
  return event;
}

observe::ActivitySection SectionOf(const BlockActivity& activity) {
  observe::ActivitySection section;
  section.read_bytes_per_second = activity.read_bytes_per_second;
  section.write_bytes_per_second = activity.write_bytes_per_second;
  section.reads_per_second = activity.reads_per_second;
  section.writes_per_second = activity.writes_per_second;
  section.flushes_per_second = activity.flushes_per_second;
  section.read_latency = activity.read_latency;
  section.write_latency = activity.write_latency;
  section.flush_latency = activity.flush_latency;
  section.busy = activity.busy;
  section.in_flight = activity.in_flight;
  return section;
}

std::map<std::string, observe::SmartSection> SmartSectionsOf(
    const std::map<std::string, DriveReport>& reports) {
  std::map<std::string, observe::SmartSection> sections;
  for (const auto& [disk, report] : reports) {
    observe::SmartSection& section = sections[disk];
    if (report.logs.smart) {
      section = SectionOf(*report.logs.smart);
      section.time = {.captured_at = report.logs.time, .monotonic = report.logs.monotonic};
    }
    section.unsupported_reason = report.unavailable;
  }
  return sections;
}

}  // namespace metal::disk
