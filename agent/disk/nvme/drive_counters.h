// What a drive's counters did between two readings of its logs (SMART, OCP's, Amazon's): for the
// flight recorder, which keeps growth that is no fault yet.
// Threading: pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "agent/disk/nvme/drive_logs.h"

namespace metal::disk {

struct CounterChange {
  std::string name;  // as in log_fields.h: "media_errors"
  uint64_t before = 0, now = 0;
};

struct CounterChanges {
  std::string disk, serial;
  std::vector<CounterChange> changes;  // in the order of the logs' fields
  bool notable = false;                // one of them speaks of the drive's health, not of its use
};

// Must not block.
using CounterSink = std::function<void(const CounterChanges&)>;

// What differs in logs that both have. What every read or write changes (bytes, commands, hours,
// temperatures, erases) is left out, so it is empty while a healthy drive works.
CounterChanges ChangesOfCounters(const DriveLogs& before, const DriveLogs& now);

}  // namespace metal::disk
