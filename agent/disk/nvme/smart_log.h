// Decodes the NVMe SMART / Health Information log (log page 02h).
// Source: NVM Express Base Specification 2.0, "SMART / Health Information". Input: 512 bytes,
// little-endian.
// Threading: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"

namespace metal::disk {

inline constexpr uint8_t kSmartLogId = 0x02;
inline constexpr size_t kSmartLogSize = 512;

// Bits of SmartLog::critical_warning. They are states, not latched.
enum CriticalWarning : uint8_t {
  kSpareBelowThreshold = 0x01,
  kTemperatureOutOfRange = 0x02,
  kReliabilityDegraded = 0x04,
  kMediaReadOnly = 0x08,
  kVolatileMemoryBackupFailed = 0x10,  // capacitors: a confirmed write may be lost at power failure
  kPersistentMemoryUnreliable = 0x20,
};

// 128-bit counters are cut at 2^64 − 1.
struct SmartLog {
  uint8_t critical_warning = 0;
  std::optional<int> temperature_celsius;  // Kelvin − 273; nullopt when the drive reports 0
  int available_spare_percent = 0;
  int available_spare_threshold_percent = 0;
  int percentage_used = 0;  // may exceed 100; 255 means 255 or more
  uint8_t endurance_group_warning = 0;
  base::ByteCount host_read;  // "Data Units Read" × 512,000 bytes
  base::ByteCount host_written;
  uint64_t host_read_commands = 0;
  uint64_t host_write_commands = 0;
  absl::Duration controller_busy;  // resolution 1 min
  uint64_t power_cycles = 0;
  uint64_t power_on_hours = 0;
  uint64_t unsafe_shutdowns = 0;
  uint64_t media_errors = 0;
  uint64_t error_log_entries = 0;            // over the drive's life
  absl::Duration warning_temperature_time;   // resolution 1 min
  absl::Duration critical_temperature_time;  // resolution 1 min
  std::array<std::optional<int>, 8> sensors_celsius;
  std::array<uint32_t, 2> thermal_transitions{};    // TMT1, TMT2
  std::array<absl::Duration, 2> thermal_throttled;  // TMT1, TMT2; resolution 1 s
};

// INVALID_ARGUMENT if page.size() != 512. Does not keep `page`.
absl::StatusOr<SmartLog> DecodeSmartLog(std::span<const std::byte> page);

// Names of the set bits, in bit order: "spare_below_threshold", …; unknown bits as "bit6", "bit7".
std::vector<std::string_view> CriticalWarningNames(uint8_t critical_warning);

}  // namespace metal::disk
