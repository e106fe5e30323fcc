// What a drive's logs say for faults: compares what they said before with what they say now.
// Counters count by their growth alone: what a drive went through before the agent looked is no
// fault of today.
// Threading: pure functions.
#pragma once

#include <string>
#include <vector>

#include "agent/disk/faults/evidence.h"
#include "agent/disk/nvme/drive_logs.h"

namespace metal::disk {

enum class Lasting : uint8_t {
  kState,   // holds as long as the log says so
  kGrowth,  // a counter grew that grows as long as the condition lasts
  kOnce     // happened; the log does not say when it is over
};

struct Finding {
  Evidence evidence;
  Lasting lasting = Lasting::kState;
};

// `previous` is null when the drive was not looked at before: then only states are found. A log
// that is absent from either says nothing.
std::vector<Finding> FindingsOfLogs(const std::string& device, const DriveLogs* previous,
                                    const DriveLogs& present);

}  // namespace metal::disk
