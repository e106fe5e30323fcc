// Decodes the NVMe Error Information log (log page 01h).
// Source: NVM Express Base Specification 2.0, "Error Information". Input: entries of 64 bytes, as
// many as were asked for (1 to ELPE + 1), little-endian.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/nvme/nvme_status.h"

namespace metal::disk {

inline constexpr uint8_t kErrorLogId = 0x01;
inline constexpr size_t kErrorEntrySize = 64;
inline constexpr size_t kMaxErrorEntries = 64;  // what one transfer of 4 KiB holds

struct ErrorEntry {
  uint64_t number = 0;  // counts the drive's errors over its life; never 0
  uint16_t queue = 0;   // 0: the admin queue; ffffh: no command of any queue
  uint16_t command = 0;
  NvmeStatus status;
  bool may_succeed_later = false;  // the "do not retry" bit is not set
  uint64_t lba = 0;  // the first one with the error, in blocks of the namespace; 0 where none is
  uint32_t name_space = 0;
  uint64_t command_specific = 0;

  StatusKind kind() const { return KindOfStatus(status); }
  // An admin command that was refused: what health tools, ours too, leave when they ask a drive
  // for what it does not have. No sign of ill health.
  bool is_noise() const { return queue == 0 && kind() == StatusKind::kRefused; }
};

// As the drive orders them, the newest first; empty slots are left out. INVALID_ARGUMENT unless
// page.size() is a multiple of 64 from 64 to 4096. Does not keep `page`.
absl::StatusOr<std::vector<ErrorEntry>> DecodeErrorLog(std::span<const std::byte> page);

}  // namespace metal::disk
