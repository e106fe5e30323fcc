// Decodes the NVMe Persistent Event log (log page 0Dh): what happened to a drive over its life,
// kept through power cycles.
// Source: NVM Express Base Specification 2.0, "Persistent Event Log". Input: the header of 512
// bytes and as much of the events as was read, little-endian. A drive has it when bit 4 of LPA is
// set. Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/disk/nvme/smart_log.h"

namespace metal::disk {

inline constexpr uint8_t kPersistentEventLogId = 0x0d;
inline constexpr size_t kPersistentEventHeaderSize = 512;
inline constexpr size_t kMaxPersistentEvents = 1024;  // decoded at most, the newest

enum PersistentEventType : uint8_t {
  kEventSmartSnapshot = 0x01,
  kEventFirmwareCommit = 0x02,
  kEventTimestampChange = 0x03,
  kEventPowerOnOrReset = 0x04,
  kEventHardwareError = 0x05,
  kEventNamespaceChange = 0x06,
  kEventFormatStart = 0x07,
  kEventFormatEnd = 0x08,
  kEventSanitizeStart = 0x09,
  kEventSanitizeEnd = 0x0a,
  kEventSetFeature = 0x0b,
  kEventTelemetry = 0x0c,
  kEventThermalExcursion = 0x0d,
};
std::string_view PersistentEventName(uint8_t type);  // "hardware error", …; "event" when unknown

// Codes of kEventHardwareError.
enum HardwareErrorCode : uint16_t {
  kHardwarePcieCorrectable = 0x01,
  kHardwarePcieNonFatal = 0x02,
  kHardwarePcieFatal = 0x03,
  kHardwarePcieLinkChanged = 0x04,
  kHardwarePcieLinkInactive = 0x05,
  kHardwareCriticalWarning = 0x06,
  kHardwareEnduranceWarning = 0x07,
  kHardwareUnsafeShutdown = 0x08,
  kHardwareControllerFatal = 0x09,
  kHardwareMediaIntegrity = 0x0a,
  kHardwareReadyTimeout = 0x0b,
};
std::string_view HardwareErrorName(uint16_t code);

struct PersistentEvent {
  uint8_t type = 0;
  uint16_t controller = 0;
  // The drive's clock, milliseconds. Since 1970 when the host had set it, else since a reset.
  uint64_t timestamp_ms = 0;
  bool clock_was_set = false;
  // Of the types that have them:
  std::optional<SmartLog> smart;                  // SMART snapshot
  std::optional<uint64_t> previous_timestamp_ms;  // timestamp change
  std::string firmware;                           // power-on or reset
  size_t resets = 0;                              // controllers that a power-on or reset names
  std::optional<uint16_t> hardware_error;         // hardware error: HardwareErrorCode
  std::optional<uint8_t> excursion, threshold;    // thermal excursion: °C over, which threshold

  friend bool operator==(const PersistentEvent& a, const PersistentEvent& b) {
    return a.type == b.type && a.controller == b.controller && a.timestamp_ms == b.timestamp_ms &&
           a.clock_was_set == b.clock_was_set && a.hardware_error == b.hardware_error;
  }
};

struct PersistentEventLog {
  uint32_t total_events = 0;
  uint64_t length = 0;  // of the whole log with its header, bytes
  uint8_t revision = 0;
  uint16_t generation = 0;  // grows with each reporting context
  uint64_t timestamp_ms = 0;
  uint64_t power_on_hours = 0;
  uint64_t power_cycles = 0;
  std::string serial, model;
  std::vector<PersistentEvent> events;  // the newest first
  bool complete = false;                // every event of the log was in the input
};

// INVALID_ARGUMENT when `bytes` is shorter than the header, or is another log. An event that the
// input cuts off, or that makes no sense, ends the decoding without an error. Keeps no bytes.
absl::StatusOr<PersistentEventLog> DecodePersistentEvents(std::span<const std::byte> bytes);

}  // namespace metal::disk
