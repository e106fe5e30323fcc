#include "agent/disk/nvme/persistent_events.h"

#include <algorithm>
#include <array>
#include <utility>

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"
#include "agent/disk/nvme/page_text.h"

namespace metal::disk {
namespace {

constexpr size_t kShortestEventHeader = 24;
constexpr size_t kResetDescriptorSize = 36;
constexpr uint64_t kTimestampMask = (uint64_t{1} << 48) - 1;

bool ClockWasSet(uint64_t timestamp) { return ((timestamp >> 49) & 7) == 1; }

void DecodeData(std::span<const std::byte> data, PersistentEvent& event) {
  switch (event.type) {
    case kEventSmartSnapshot:
      if (data.size() < kSmartLogSize) return;
      if (auto smart = DecodeSmartLog(data.first(kSmartLogSize)); smart.ok()) event.smart = *smart;
      return;
    case kEventTimestampChange:
      if (data.size() >= 8)
        event.previous_timestamp_ms = LoadLe<uint64_t>(data, 0) & kTimestampMask;
      return;
    case kEventPowerOnOrReset:
      if (data.size() < 8) return;
      event.firmware = LoadText(data, 0, 8);
      event.resets = (data.size() - 8) / kResetDescriptorSize;
      return;
    case kEventHardwareError:
      if (data.size() >= 2) event.hardware_error = LoadLe<uint16_t>(data, 0);
      return;
    case kEventThermalExcursion:
      if (data.size() < 2) return;
      event.excursion = LoadLe<uint8_t>(data, 0);
      event.threshold = LoadLe<uint8_t>(data, 1);
      return;
    default:
      return;
  }
}

// The event at the start of `bytes` and its size; nullopt when it is cut off or impossible.
std::optional<std::pair<PersistentEvent, size_t>> DecodeEvent(std::span<const std::byte> bytes) {
  if (bytes.size() < kShortestEventHeader) return std::nullopt;
  // The field leaves out the three bytes up to and with itself.
  const size_t header = size_t{LoadLe<uint8_t>(bytes, 2)} + 3;
  const size_t vendor = LoadLe<uint16_t>(bytes, 20);  // the vendor's bytes, before the event's
  const size_t length = LoadLe<uint16_t>(bytes, 22);  // of both
  if (header < kShortestEventHeader || vendor > length || header + length > bytes.size()) {
    return std::nullopt;
  }
  const auto timestamp = LoadLe<uint64_t>(bytes, 6);
  PersistentEvent event;
  event.type = LoadLe<uint8_t>(bytes, 0);
  event.controller = LoadLe<uint16_t>(bytes, 4);
  event.timestamp_ms = timestamp & kTimestampMask;
  event.clock_was_set = ClockWasSet(timestamp);
  DecodeData(bytes.subspan(header + vendor, length - vendor), event);
  return std::pair(std::move(event), header + length);
}

// "Log Header Length" counts from byte 20 on.
size_t HeaderSize(std::span<const std::byte> bytes) {
  const size_t told = size_t{LoadLe<uint16_t>(bytes, 18)} + 20;
  const bool possible = told >= kPersistentEventHeaderSize && told <= 4096;
  return possible ? told : kPersistentEventHeaderSize;
}

}  // namespace

absl::StatusOr<PersistentEventLog> DecodePersistentEvents(std::span<const std::byte> bytes) {
  if (bytes.size() < kPersistentEventHeaderSize) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode persistent events: {} bytes are less than the header of {}",
                       bytes.size(), kPersistentEventHeaderSize);
  }
  if (LoadLe<uint8_t>(bytes, 0) != kPersistentEventLogId) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode persistent events: the page says that it is log {:#04x}",
                       unsigned{LoadLe<uint8_t>(bytes, 0)});
  }
  PersistentEventLog log;
  log.total_events = LoadLe<uint32_t>(bytes, 4);
  log.length = LoadLe<uint64_t>(bytes, 8);
  log.revision = LoadLe<uint8_t>(bytes, 16);
  log.timestamp_ms = LoadLe<uint64_t>(bytes, 20) & kTimestampMask;
  log.power_on_hours = LoadLe128Saturated(bytes, 28);
  log.power_cycles = LoadLe<uint64_t>(bytes, 44);
  log.serial = LoadText(bytes, 56, 20);
  log.model = LoadText(bytes, 76, 40);
  log.generation = LoadLe<uint16_t>(bytes, 372);
  auto rest = bytes.subspan(std::min(HeaderSize(bytes), bytes.size()));
  const size_t wanted = std::min<size_t>(log.total_events, kMaxPersistentEvents);
  while (log.events.size() < wanted) {
    auto event = DecodeEvent(rest);
    if (!event) break;
    rest = rest.subspan(event->second);
    log.events.push_back(std::move(event->first));
  }
  log.complete = log.events.size() == log.total_events;
  return log;
}

std::string_view PersistentEventName(uint8_t type) {
  static constexpr std::array<std::string_view, 14> kNames = {"event",
                                                              "SMART snapshot",
                                                              "firmware commit",
                                                              "timestamp change",
                                                              "power-on or reset",
                                                              "hardware error",
                                                              "namespace change",
                                                              "format start",
                                                              "format end",
                                                              "sanitize start",
                                                              "sanitize end",
                                                              "set feature",
                                                              "telemetry",
                                                              "thermal excursion"};
  return type < kNames.size() ? kNames.at(type) : kNames[0];
}

std::string_view HardwareErrorName(uint16_t code) {
  static constexpr std::array<std::string_view, 12> kNames = {"unknown",
                                                              "PCIe correctable error",
                                                              "PCIe uncorrectable non-fatal error",
                                                              "PCIe uncorrectable fatal error",
                                                              "PCIe link status change",
                                                              "PCIe link not active",
                                                              "critical warning condition",
                                                              "endurance group critical warning",
                                                              "unsafe shutdown",
                                                              "controller fatal status",
                                                              "media and data integrity status",
                                                              "controller ready timeout exceeded"};
  return code < kNames.size() ? kNames.at(code) : kNames[0];
}

}  // namespace metal::disk
