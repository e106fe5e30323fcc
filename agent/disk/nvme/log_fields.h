// A drive's logs as names and values, for people and for programs that show or compare them.
// Threading: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/disk/nvme/drive_logs.h"

namespace metal::disk {

// Numbers are decimal, in the unit that the name ends with; truth is "true" and "false".
struct LogField {
  std::string name, value;
};

struct LogRecord {
  std::vector<LogField> fields;
};

// One log: one record, or one for each of its entries, the newest first.
struct LogTable {
  std::string_view name;  // "identify_controller", "smart", "error", "persistent_events", …
  std::vector<LogRecord> records;
};

// A table for each log that is there, in a fixed order; a log without entries has no records.
std::vector<LogTable> TablesOfLogs(const DriveLogs& logs);

}  // namespace metal::disk
