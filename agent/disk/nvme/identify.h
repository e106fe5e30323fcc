// Decodes the NVMe Identify Controller data structure (CNS 01h).
// Source: NVM Express Base Specification 2.0, "Identify Controller Data Structure". Input: 4096
// bytes, little-endian.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"

namespace metal::disk {

inline constexpr size_t kIdentifySize = 4096;

struct IdentifyController {
  uint16_t pci_vendor = 0;
  std::string serial, model,
      firmware;  // trailing spaces removed; bytes outside printable ASCII become '?'
  uint8_t max_transfer_exponent =
      0;                 // MDTS: in units of the minimum page size, as a power of two; 0: no limit
  uint32_t version = 0;  // VER: major << 16 | minor << 8 | tertiary
  bool can_self_test = false;                   // OACS bit 4
  bool has_persistent_event_log = false;        // LPA bit 4
  int error_log_entries = 1;                    // ELPE + 1
  std::optional<int> warning_celsius;           // WCTEMP; nullopt when not reported
  std::optional<int> critical_celsius;          // CCTEMP
  base::ByteCount total_capacity;               // TNVMCAP; 0 when not reported
  absl::Duration extended_self_test;            // EDSTT; resolution 1 min
  bool volatile_write_cache = false;            // VWC bit 0
  uint32_t atomic_write_power_fail_blocks = 1;  // AWUPF + 1, logical blocks
};

// INVALID_ARGUMENT if data.size() != 4096. Does not keep `data`.
absl::StatusOr<IdentifyController> DecodeIdentifyController(std::span<const std::byte> data);

}  // namespace metal::disk
