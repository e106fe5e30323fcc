#include "agent/disk/nvme/log_evidence.h"

#include <algorithm>
#include <optional>

#include "agent/disk/nvme/firmware_list.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr int kWearWarning = 90, kWornOut = 100;  // percentage used
// Of the capacitors' energy margin, percent. 1 is the least that saves what was confirmed.
constexpr int kCapacitorWorn = 5;

// Collects findings of one comparison.
class Findings {
 public:
  Findings(const std::string& device, absl::Time time) : device_(device), time_(time) {}

  Evidence& Add(FaultClass fault_class, Witness witness, Lasting lasting, std::string text) {
    Finding finding;
    finding.evidence.fault_class = fault_class;
    finding.evidence.witness = witness;
    finding.evidence.device = device_;
    finding.evidence.text = std::move(text);
    finding.evidence.time = time_;
    finding.lasting = lasting;
    all_.push_back(std::move(finding));
    return all_.back().evidence;
  }

  std::vector<Finding> Take() { return std::move(all_); }

 private:
  const std::string& device_;
  const absl::Time time_;
  std::vector<Finding> all_;
};

// A counter that went back was reset: it says nothing.
uint64_t Growth(uint64_t before, uint64_t now) { return now > before ? now - before : 0; }
int64_t Growth(absl::Duration before, absl::Duration now, absl::Duration unit) {
  return now > before ? (now - before) / unit : 0;
}
int64_t Signed(uint64_t value) {
  return static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX));
}

// The 512-byte sector of a block of the disk; nullopt when the block is none of this disk's.
std::optional<uint64_t> SectorOf(const DriveLogs& logs, uint64_t lba) {
  if (!logs.name_space || logs.name_space->block_size == 0) return std::nullopt;
  if (lba >= logs.name_space->size_blocks) return std::nullopt;
  return lba * (logs.name_space->block_size / 512);
}

// --- SMART ---

struct WarningRow {
  uint8_t bit;
  FaultClass fault_class;
  const char* text;
};
constexpr WarningRow kWarnings[] = {
    {kSpareBelowThreshold, FaultClass::kSpareLow, "its spare blocks are below its own threshold"},
    {kTemperatureOutOfRange, FaultClass::kOverheating, "its temperature is out of range"},
    {kReliabilityDegraded, FaultClass::kUnreliable, "it calls itself unreliable"},
    {kMediaReadOnly, FaultClass::kReadOnly, "it has made its media read-only"},
    {kVolatileMemoryBackupFailed, FaultClass::kUnreliable,
     "the backup of its volatile memory has failed: a confirmed write may be lost with power"},
    {kPersistentMemoryUnreliable, FaultClass::kUnreliable,
     "its persistent memory region is unreliable"},
};

void FindWarnings(const SmartLog& smart, Findings& found) {
  for (const WarningRow& row : kWarnings) {
    if ((smart.critical_warning & row.bit) == 0) continue;
    std::string text =
        fmt::format("critical warning {:#04x}: {}", smart.critical_warning, row.text);
    if (row.bit == kSpareBelowThreshold) {
      text += fmt::format(" ({} % of {} %)", smart.available_spare_percent,
                          smart.available_spare_threshold_percent);
    } else if (row.bit == kTemperatureOutOfRange && smart.temperature_celsius) {
      text += fmt::format(" ({} °C)", *smart.temperature_celsius);
    }
    found.Add(row.fault_class, Witness::kSmartLog, Lasting::kState, std::move(text));
  }
  if (smart.percentage_used >= kWearWarning) {
    found.Add(FaultClass::kWearingOut, Witness::kSmartLog, Lasting::kState,
              fmt::format("{} % of its rated life is used{}", smart.percentage_used,
                          smart.percentage_used >= kWornOut ? "" : ", it is rated for 100 %"));
  }
}

void FindHeat(const SmartLog& before, const SmartLog& now, Findings& found) {
  struct Row {
    absl::Duration before, now;
    const char* text;
  };
  // The worst first: one of them is told.
  const Row rows[] = {
      {before.critical_temperature_time, now.critical_temperature_time,
       "above its critical temperature"},
      {before.thermal_throttled[1], now.thermal_throttled[1],
       "throttled heavily because of its temperature"},
      {before.warning_temperature_time, now.warning_temperature_time,
       "above its warning temperature"},
      {before.thermal_throttled[0], now.thermal_throttled[0],
       "throttled lightly because of its temperature"},
  };
  for (const Row& row : rows) {
    const int64_t seconds = Growth(row.before, row.now, absl::Seconds(1));
    if (seconds == 0) continue;
    found
        .Add(FaultClass::kOverheating, Witness::kSmartLog, Lasting::kGrowth,
             fmt::format("{} s {}", seconds, row.text))
        .delta = seconds;
    return;
  }
}

void FindInSmart(const DriveLogs* previous, const DriveLogs& present, Findings& found) {
  if (!present.smart) return;
  FindWarnings(*present.smart, found);
  if (previous == nullptr || !previous->smart) return;
  const uint64_t media = Growth(previous->smart->media_errors, present.smart->media_errors);
  if (media != 0) {
    found
        .Add(FaultClass::kMediaError, Witness::kSmartLog, Lasting::kOnce,
             fmt::format("{} more media errors, {} over its life", media,
                         present.smart->media_errors))
        .delta = Signed(media);
  }
  FindHeat(*previous->smart, *present.smart, found);
}

// --- What the drive is ---

void FindInIdentity(const DriveLogs& present, Findings& found) {
  const DriveIdentity& is = present.identity;
  if (present.noted) {
    const DriveIdentity& was = *present.noted;
    std::vector<std::string> differences;
    const auto compare = [&](const char* what, const std::string& before, const std::string& now) {
      if (before.empty() || now.empty() || before == now) return;
      differences.push_back(fmt::format("{} {} instead of {}", what, now, before));
    };
    compare("serial", was.serial, is.serial);
    compare("world-wide name", was.wwid, is.wwid);
    compare("model", was.model, is.model);
    // A volume may grow.
    if (is.size_bytes != 0 && is.size_bytes < was.size_bytes) {
      differences.push_back(fmt::format("{} bytes instead of {}", is.size_bytes, was.size_bytes));
    }
    if (!differences.empty()) {
      found.Add(FaultClass::kWrongDevice, Witness::kInventory, Lasting::kState,
                fmt::format("not the drive that was here: {}", fmt::join(differences, ", ")));
    }
  }
  std::optional<uint64_t> hours;
  if (present.smart) hours = present.smart->power_on_hours;
  const BadFirmware* const bad = FindBadFirmware(is.model, is.firmware);
  if (bad == nullptr || !IsBadFirmwareDue(*bad, hours)) return;
  std::string text = fmt::format("firmware {} of this model {}", is.firmware, bad->failure);
  if (bad->hours != 0) text += fmt::format(" at {} h of power-on", bad->hours);
  if (hours) text += fmt::format(", it has {} h", *hours);
  found.Add(FaultClass::kFirmwareClock, Witness::kInventory, Lasting::kState,
            fmt::format("{}; {} mends it ({})", text, bad->mended, bad->source));
}

// A cache that is lost with power is no fault while the server syncs; it matters to who would turn
// full_page_writes off.
void FindVolatileCache(const DriveLogs& present, Findings& found) {
  if (!present.controller || !present.controller->volatile_write_cache) return;
  if (present.ocp && present.ocp->capacitor_percent.value_or(0) > 0) return;
  uint64_t atomic = present.controller->atomic_write_power_fail_blocks;
  std::string size = fmt::format("{} blocks", atomic);
  if (present.name_space && present.name_space->block_size != 0) {
    atomic = present.name_space->atomic_write_power_fail_blocks.value_or(atomic);
    size = fmt::format("{} bytes", atomic * present.name_space->block_size);
  }
  found.Add(FaultClass::kTornWrites, Witness::kInventory, Lasting::kState,
            fmt::format("its write cache is volatile, and nothing shows that it has power-loss "
                        "protection; at power failure writes of {} are atomic",
                        size));
}

// --- Errors, self-tests, persistent events ---

struct ErrorRow {
  StatusKind kind;
  FaultClass fault_class;
};
constexpr ErrorRow kErrors[] = {{StatusKind::kUnreadable, FaultClass::kMediaError},
                                {StatusKind::kUnwritten, FaultClass::kWriteError},
                                {StatusKind::kCorrupt, FaultClass::kCorruption},
                                {StatusKind::kReadOnly, FaultClass::kReadOnly},
                                {StatusKind::kInternal, FaultClass::kUnreliable}};

uint64_t NewestError(const std::vector<ErrorEntry>& entries) {
  uint64_t newest = 0;
  for (const ErrorEntry& entry : entries) newest = std::max(newest, entry.number);
  return newest;
}

// What was refused or aborted is left out: it is the asker's, as the noise of health tools is.
void FindInErrors(const DriveLogs* previous, const DriveLogs& present, Findings& found) {
  if (!present.errors || previous == nullptr || !previous->errors) return;
  const uint64_t seen = NewestError(*previous->errors);
  for (const ErrorRow& row : kErrors) {
    const ErrorEntry* newest = nullptr;
    int64_t count = 0;
    for (const ErrorEntry& entry : *present.errors) {
      if (entry.number <= seen || entry.kind() != row.kind) continue;
      ++count;
      if (newest == nullptr || entry.number > newest->number) newest = &entry;
    }
    if (newest == nullptr) continue;
    const bool is_ours = present.name_space_id == 0 || newest->name_space == present.name_space_id;
    std::string text =
        fmt::format("{} new in its error log: {}", count, StatusText(newest->status));
    if (newest->queue != 0 && newest->queue != 0xffff) {
      text += fmt::format(" at LBA {} of namespace {}", newest->lba, newest->name_space);
    }
    Evidence& evidence =
        found.Add(row.fault_class, Witness::kErrorLog, Lasting::kOnce, std::move(text));
    evidence.nvme_status = newest->status;
    evidence.delta = count;
    if (is_ours && newest->queue != 0) evidence.sector = SectorOf(present, newest->lba);
  }
}

void FindInSelfTests(const DriveLogs& present, Findings& found) {
  if (!present.self_tests) return;
  const auto& results = present.self_tests->results;
  const auto last = std::find_if(results.begin(), results.end(), [](const SelfTestResult& each) {
    return each.passed() || each.failed();
  });
  if (last == results.end() || last->passed()) return;
  std::string text = fmt::format("its {} self-test {}", SelfTestName(last->test),
                                 SelfTestResultName(last->result));
  if (last->result == 7) text += fmt::format(" in segment {}", last->segment);
  if (last->failing_lba) text += fmt::format(", first at LBA {}", *last->failing_lba);
  text += fmt::format(", at {} h of power-on", last->power_on_hours);
  Evidence& evidence =
      found.Add(FaultClass::kUnreliable, Witness::kErrorLog, Lasting::kState, std::move(text));
  if (last->failing_lba) evidence.sector = SectorOf(present, *last->failing_lba);
  if (last->status_type && last->status_code) {
    evidence.nvme_status = NvmeStatus{.type = *last->status_type, .code = *last->status_code};
  }
}

std::optional<FaultClass> ClassOfHardwareError(uint16_t code) {
  switch (code) {
    case kHardwarePcieCorrectable:
    case kHardwarePcieNonFatal:
    case kHardwarePcieFatal:
    case kHardwarePcieLinkChanged:
    case kHardwarePcieLinkInactive:
      return FaultClass::kLinkDegraded;
    case kHardwareControllerFatal:
    case kHardwareReadyTimeout:
      return FaultClass::kControllerReset;
    case kHardwareMediaIntegrity:
      return FaultClass::kMediaError;
    default:  // warnings are in the SMART log, and a shutdown is no fault
      return std::nullopt;
  }
}

std::optional<FaultClass> ClassOfEvent(const PersistentEvent& event) {
  if (event.type == kEventThermalExcursion) return FaultClass::kOverheating;
  if (event.type != kEventHardwareError || !event.hardware_error) return std::nullopt;
  return ClassOfHardwareError(*event.hardware_error);
}

void FindInEvents(const DriveLogs* previous, const DriveLogs& present, Findings& found) {
  if (!present.events || previous == nullptr || !previous->events) return;
  const auto& events = present.events->events;
  const auto& before = previous->events->events;
  // The newest come first: those above the one that was the newest.
  const auto end =
      before.empty() ? events.end() : std::find(events.begin(), events.end(), before.front());
  for (auto event = events.begin(); event != end; ++event) {
    const auto fault_class = ClassOfEvent(*event);
    if (!fault_class) continue;
    const std::string what =
        event->type == kEventHardwareError
            ? std::string(HardwareErrorName(*event->hardware_error))
            : fmt::format("{} °C above a temperature threshold", event->excursion.value_or(0));
    found.Add(*fault_class, Witness::kErrorLog, Lasting::kOnce,
              fmt::format("its persistent events have a new {}: {}",
                          PersistentEventName(event->type), what));
  }
}

// --- Vendors' logs ---

struct OcpRow {
  FaultClass fault_class;
  Lasting lasting;
  uint64_t before, now;
  const char* text;
};

void FindOcpGrowth(const OcpLog& before, const OcpLog& now, Findings& found) {
  const auto uncorrected = [](const OcpLog& log) {
    return Growth(log.end_to_end_corrected, log.end_to_end_detected);
  };
  const OcpRow rows[] = {
      {FaultClass::kMediaError, Lasting::kOnce, before.uncorrectable_reads, now.uncorrectable_reads,
       "reads that it could not correct"},
      {FaultClass::kCorruption, Lasting::kOnce, uncorrected(before), uncorrected(now),
       "end-to-end errors inside it that it did not correct"},
      {FaultClass::kUnreliable, Lasting::kOnce,
       static_cast<uint64_t>(before.dies_offline.value_or(0)),
       static_cast<uint64_t>(now.dies_offline.value_or(0)), "of its dies offline"},
      {FaultClass::kControllerReset, Lasting::kOnce, before.command_timeouts.value_or(0),
       now.command_timeouts.value_or(0), "command timeouts"},
      {FaultClass::kLinkDegraded, Lasting::kGrowth, before.pcie_correctable_errors,
       now.pcie_correctable_errors, "correctable PCIe errors"},
      {FaultClass::kLinkDegraded, Lasting::kGrowth, before.pcie_link_retrainings.value_or(0),
       now.pcie_link_retrainings.value_or(0), "retrainings of its PCIe link"},
  };
  for (const OcpRow& row : rows) {
    const uint64_t growth = Growth(row.before, row.now);
    if (growth == 0) continue;
    found
        .Add(row.fault_class, Witness::kVendorLog, row.lasting,
             fmt::format("{} more {}, {} over its life", growth, row.text, row.now))
        .delta = Signed(growth);
  }
}

void FindInOcp(const DriveLogs* previous, const DriveLogs& present, Findings& found) {
  if (!present.ocp) return;
  if (present.ocp->capacitor_percent && *present.ocp->capacitor_percent < kCapacitorWorn) {
    found.Add(FaultClass::kUnreliable, Witness::kVendorLog, Lasting::kState,
              fmt::format("its capacitors have {} % of energy to spare: a confirmed write may be "
                          "lost with power",
                          *present.ocp->capacitor_percent));
  }
  if (present.ocp->throttling_level >= 1 && present.ocp->throttling_level <= 3) {
    found.Add(FaultClass::kOverheating, Witness::kVendorLog, Lasting::kState,
              fmt::format("throttled at level {} because of its temperature",
                          present.ocp->throttling_level));
  }
  if (previous != nullptr && previous->ocp) FindOcpGrowth(*previous->ocp, *present.ocp, found);
}

void FindInAws(const DriveLogs* previous, const DriveLogs& present, Findings& found) {
  if (!present.aws || previous == nullptr || !previous->aws) return;
  struct Row {
    absl::Duration AwsLog::*field;
    const char* text;
  };
  constexpr Row kRows[] = {{&AwsLog::volume_over_iops, "the volume's IOPS"},
                           {&AwsLog::volume_over_throughput, "the volume's throughput"},
                           {&AwsLog::instance_over_iops, "the instance's IOPS"},
                           {&AwsLog::instance_over_throughput, "the instance's throughput"}};
  int64_t longest = 0;
  std::vector<std::string> limits;
  for (const Row& row : kRows) {
    const int64_t microseconds =
        Growth((*previous->aws).*row.field, (*present.aws).*row.field, absl::Microseconds(1));
    if (microseconds == 0) continue;
    longest = std::max(longest, microseconds);
    limits.push_back(fmt::format("{} for {} µs", row.text, microseconds));
  }
  if (limits.empty()) return;
  found
      .Add(FaultClass::kThrottled, Witness::kVendorLog, Lasting::kGrowth,
           fmt::format("more was asked for than {}", fmt::join(limits, ", ")))
      .delta = longest;
}

}  // namespace

std::vector<Finding> FindingsOfLogs(const std::string& device, const DriveLogs* previous,
                                    const DriveLogs& present) {
  Findings found(device, present.time);
  FindInSmart(previous, present, found);
  FindInIdentity(present, found);
  FindVolatileCache(present, found);
  FindInErrors(previous, present, found);
  FindInSelfTests(present, found);
  FindInEvents(previous, present, found);
  FindInOcp(previous, present, found);
  FindInAws(previous, present, found);
  return found.Take();
}

}  // namespace metal::disk
