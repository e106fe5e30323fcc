// Decodes the NVMe Identify Controller (CNS 01h) and Identify Namespace (CNS 00h) data structures.
// Source: NVM Express Base Specification 2.0, "Identify Controller Data Structure", and NVM Command
// Set Specification 1.0, "Identify Namespace Data Structure". Input: 4096 bytes, little-endian.
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
  // Trailing spaces removed; bytes outside printable ASCII become '?'.
  std::string serial, model, firmware;
  // MDTS: in units of the minimum page size, as a power of two; 0: no limit.
  uint8_t max_transfer_exponent = 0;
  uint32_t version = 0;                         // VER: major << 16 | minor << 8 | tertiary
  bool can_self_test = false;                   // OACS bit 4
  bool has_log_offsets = false;                 // LPA bit 2: logs may be read in parts
  bool has_persistent_event_log = false;        // LPA bit 4
  bool lists_its_logs = false;                  // LPA bit 5: log page 00h
  int error_log_entries = 1;                    // ELPE + 1
  std::optional<int> warning_celsius;           // WCTEMP; nullopt when not reported
  std::optional<int> critical_celsius;          // CCTEMP
  base::ByteCount total_capacity;               // TNVMCAP; 0 when not reported
  absl::Duration extended_self_test;            // EDSTT; resolution 1 min
  bool volatile_write_cache = false;            // VWC bit 0
  uint32_t atomic_write_blocks = 1;             // AWUN + 1, logical blocks
  uint32_t atomic_write_power_fail_blocks = 1;  // AWUPF + 1, logical blocks
};

// INVALID_ARGUMENT if data.size() != 4096. Does not keep `data`.
absl::StatusOr<IdentifyController> DecodeIdentifyController(std::span<const std::byte> data);

struct IdentifyNamespace {
  uint64_t size_blocks = 0;      // NSZE
  uint64_t capacity_blocks = 0;  // NCAP
  uint64_t used_blocks = 0;      // NUSE
  // Of the format in use (FLBAS, LBADS), bytes; 0 when the drive names none that can be.
  uint32_t block_size = 0;
  uint32_t metadata_size = 0;  // bytes for each block
  uint8_t protection = 0;      // DPS bits 2:0: type of end-to-end protection, 0 none
  // NAWUPF + 1; nullopt: that of the controller holds.
  std::optional<uint32_t> atomic_write_power_fail_blocks;
  std::string globally_unique_id;  // NGUID, 32 hexadecimal digits; empty when the drive has none
};

// INVALID_ARGUMENT if data.size() != 4096. Does not keep `data`.
absl::StatusOr<IdentifyNamespace> DecodeIdentifyNamespace(std::span<const std::byte> data);

}  // namespace metal::disk
