// Decodes the statistics log of Amazon's NVMe volumes (log page D0h): EBS and instance store.
// Source: the fields and units of "Detailed performance statistics" in Amazon's documentation of
// EBS volumes and of instance store; the layout as nvme-cli's plugin "amzn" reads it. Input:
// exactly 4096 bytes, little-endian. Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::disk {

inline constexpr uint8_t kAwsLogId = 0xd0;
inline constexpr size_t kAwsLogSize = 4096;
inline constexpr uint16_t kAmazonPciVendor = 0x1d0f;

struct AwsLatencyBin {
  uint64_t lower_us = 0, upper_us = 0;
  uint64_t count = 0;
};

// Counters since the volume was attached. Times have a resolution of 1 µs and are cut at 2^63 µs.
struct AwsLog {
  bool instance_store = false;  // else EBS
  uint64_t read_ops = 0, write_ops = 0;
  uint64_t read_bytes = 0, write_bytes = 0;
  absl::Duration read_time, write_time;
  // How long more was asked for than the volume, or the instance, is sold for. The volume's are 0
  // for instance store.
  absl::Duration volume_over_iops, volume_over_throughput;
  absl::Duration instance_over_iops, instance_over_throughput;
  uint64_t queue_length = 0;                         // at the moment of reading
  std::vector<AwsLatencyBin> read_bins, write_bins;  // 64 at most
};

// INVALID_ARGUMENT if page.size() != 4096 or the magic number is neither of the two. Does not keep
// `page`.
absl::StatusOr<AwsLog> DecodeAwsLog(std::span<const std::byte> page);

}  // namespace metal::disk
