// What a drive says of itself: the newest of each of its logs that it has and answered.
// Threading: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/nvme/aws_log.h"
#include "agent/disk/nvme/error_log.h"
#include "agent/disk/nvme/identify.h"
#include "agent/disk/nvme/ocp_log.h"
#include "agent/disk/nvme/persistent_events.h"
#include "agent/disk/nvme/self_test_log.h"
#include "agent/disk/nvme/smart_log.h"

namespace metal::disk {

// Which drive it is. Empty and 0: not known.
struct DriveIdentity {
  std::string model, serial;
  std::string wwid{};  // world-wide name: "eui.…", "nvme.…", "naa.…"
  std::string firmware;
  uint64_t size_bytes = 0;
  friend bool operator==(const DriveIdentity&, const DriveIdentity&) = default;
};

struct DriveLogs {
  absl::Time time = absl::InfinitePast();  // of the last answer
  base::MonotonicTime monotonic;
  DriveIdentity identity;              // as the kernel has it
  std::optional<DriveIdentity> noted;  // of the drive that should be here
  // Each is absent until the drive has answered, and where it does not have the log.
  std::optional<IdentifyController> controller;
  std::optional<IdentifyNamespace> name_space;
  uint32_t name_space_id = 0;  // of the disk; 0: not known
  std::optional<SmartLog> smart;
  std::optional<std::vector<ErrorEntry>> errors;
  std::optional<SelfTestLog> self_tests;
  std::optional<PersistentEventLog> events;
  std::optional<OcpLog> ocp;
  std::optional<AwsLog> aws;
};

}  // namespace metal::disk
