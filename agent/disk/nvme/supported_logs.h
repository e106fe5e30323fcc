// Decodes the NVMe Supported Log Pages log (log page 00h).
// Source: NVM Express Base Specification 2.0, "Supported Log Pages". Input: exactly 1024 bytes,
// little-endian. A drive has it when bit 5 of LPA is set.
// Threading: pure functions.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace metal::disk {

inline constexpr uint8_t kSupportedLogsId = 0x00;
inline constexpr size_t kSupportedLogsSize = 1024;

// Bit i: the drive has log page i. INVALID_ARGUMENT if page.size() != 1024.
absl::StatusOr<std::bitset<256>> DecodeSupportedLogs(std::span<const std::byte> page);

}  // namespace metal::disk
