#include "agent/disk/nvme/drive_counters.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "agent/disk/nvme/log_fields.h"

namespace metal::disk {
namespace {

// Changed by use alone; "…_celsius" too.
constexpr std::array<std::string_view, 19> kRoutine = {"host_read_bytes",
                                                       "host_written_bytes",
                                                       "host_read_commands",
                                                       "host_write_commands",
                                                       "controller_busy_minutes",
                                                       "power_on_hours",
                                                       "media_written_bytes",
                                                       "media_read_bytes",
                                                       "refreshes",
                                                       "most_erases",
                                                       "least_erases",
                                                       "free_blocks_percent",
                                                       "read_ops",
                                                       "write_ops",
                                                       "read_bytes",
                                                       "write_bytes",
                                                       "read_time_microseconds",
                                                       "write_time_microseconds",
                                                       "queue_length"};

// Healthy drives have them as well, or others' commands cause them.
constexpr std::array<std::string_view, 8> kHarmless = {
    "error_log_entries", "power_cycles", "unsafe_shutdowns",        "percentage_used",
    "soft_ecc_errors",   "unaligned_io", "pcie_correctable_errors", "power_loss_starts"};

bool IsRoutine(std::string_view name) {
  return name.ends_with("_celsius") || std::ranges::find(kRoutine, name) != kRoutine.end();
}

std::vector<LogField> CountersOf(const DriveLogs& logs) {
  DriveLogs counting;
  counting.smart = logs.smart;
  counting.ocp = logs.ocp;
  counting.aws = logs.aws;
  std::vector<LogField> fields;
  for (LogTable& table : TablesOfLogs(counting)) {
    for (LogRecord& record : table.records)
      std::ranges::move(record.fields, std::back_inserter(fields));
  }
  return fields;
}

std::optional<uint64_t> NumberOf(const std::string& text) {
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || rest != end) return std::nullopt;
  return number;
}

}  // namespace

CounterChanges ChangesOfCounters(const DriveLogs& before, const DriveLogs& now) {
  CounterChanges found;
  const std::vector<LogField> known = CountersOf(before);
  for (const LogField& field : CountersOf(now)) {
    if (IsRoutine(field.name)) continue;
    const auto earlier = std::ranges::find(known, field.name, &LogField::name);
    if (earlier == known.end() || earlier->value == field.value) continue;
    const auto was = NumberOf(earlier->value), is = NumberOf(field.value);
    if (!was || !is) continue;
    found.changes.push_back({field.name, *was, *is});
    if (std::ranges::find(kHarmless, field.name) == kHarmless.end()) found.notable = true;
  }
  return found;
}

}  // namespace metal::disk
