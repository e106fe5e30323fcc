#include "agent/disk/nvme/smart_log.h"

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"

namespace metal::disk {
namespace {

constexpr uint64_t kBytesPerDataUnit = 512'000;
constexpr int kKelvinAtZeroCelsius = 273;

std::optional<int> CelsiusFromKelvin(uint16_t kelvin) {
  if (kelvin == 0) return std::nullopt;
  return int{kelvin} - kKelvinAtZeroCelsius;
}

base::ByteCount BytesFromDataUnits(uint64_t units) {
  if (units > UINT64_MAX / kBytesPerDataUnit) return {UINT64_MAX};
  return {units * kBytesPerDataUnit};
}

absl::Duration MinutesSaturated(uint64_t minutes) {
  return minutes > static_cast<uint64_t>(INT64_MAX) ? absl::InfiniteDuration()
                                                    : absl::Minutes(static_cast<int64_t>(minutes));
}

}  // namespace

absl::StatusOr<SmartLog> DecodeSmartLog(std::span<const std::byte> page) {
  if (page.size() != kSmartLogSize) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode smart log: {} bytes instead of {}", page.size(), kSmartLogSize);
  }
  SmartLog log;
  log.critical_warning = LoadLe<uint8_t>(page, 0);
  log.temperature_celsius = CelsiusFromKelvin(LoadLe<uint16_t>(page, 1));
  log.available_spare_percent = LoadLe<uint8_t>(page, 3);
  log.available_spare_threshold_percent = LoadLe<uint8_t>(page, 4);
  log.percentage_used = LoadLe<uint8_t>(page, 5);
  log.endurance_group_warning = LoadLe<uint8_t>(page, 6);
  log.host_read = BytesFromDataUnits(LoadLe128Saturated(page, 32));
  log.host_written = BytesFromDataUnits(LoadLe128Saturated(page, 48));
  log.host_read_commands = LoadLe128Saturated(page, 64);
  log.host_write_commands = LoadLe128Saturated(page, 80);
  log.controller_busy = MinutesSaturated(LoadLe128Saturated(page, 96));
  log.power_cycles = LoadLe128Saturated(page, 112);
  log.power_on_hours = LoadLe128Saturated(page, 128);
  log.unsafe_shutdowns = LoadLe128Saturated(page, 144);
  log.media_errors = LoadLe128Saturated(page, 160);
  log.error_log_entries = LoadLe128Saturated(page, 176);
  log.warning_temperature_time = absl::Minutes(LoadLe<uint32_t>(page, 192));
  log.critical_temperature_time = absl::Minutes(LoadLe<uint32_t>(page, 196));
  for (size_t i = 0; i < log.sensors_celsius.size(); ++i) {
    log.sensors_celsius[i] = CelsiusFromKelvin(LoadLe<uint16_t>(page, 200 + 2 * i));
  }
  for (size_t i = 0; i < 2; ++i) {
    log.thermal_transitions[i] = LoadLe<uint32_t>(page, 216 + 4 * i);
    log.thermal_throttled[i] = absl::Seconds(LoadLe<uint32_t>(page, 224 + 4 * i));
  }
  return log;
}

std::vector<std::string_view> CriticalWarningNames(uint8_t critical_warning) {
  static constexpr std::array<std::string_view, 8> kNames = {"spare_below_threshold",
                                                             "temperature_out_of_range",
                                                             "reliability_degraded",
                                                             "media_read_only",
                                                             "volatile_memory_backup_failed",
                                                             "persistent_memory_unreliable",
                                                             "bit6",
                                                             "bit7"};
  std::vector<std::string_view> names;
  for (size_t bit = 0; bit < kNames.size(); ++bit) {
    if ((critical_warning >> bit) & 1) names.push_back(kNames[bit]);
  }
  return names;
}

}  // namespace metal::disk
