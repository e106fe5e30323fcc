// Decodes the SMART / Health Information Extended log of drives for data centres (log page C0h).
// Source: OCP Datacenter NVMe SSD Specification 2.0 and 2.5, "SMART / Health Information Extended".
// Input: exactly 512 bytes, little-endian, with the specification's GUID at the end: other vendors
// have other pages under this number.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"

namespace metal::disk {

inline constexpr uint8_t kOcpLogId = 0xc0;
inline constexpr size_t kOcpLogSize = 512;

// Counters over the drive's life; 128-bit ones are cut at 2^64 − 1.
struct OcpLog {
  uint64_t media_bytes_written = 0, media_bytes_read = 0;
  uint64_t bad_user_blocks = 0, bad_system_blocks = 0;       // 48-bit raw counts
  int bad_user_blocks_left = 0, bad_system_blocks_left = 0;  // normalised: 100 new, 0 used up
  uint64_t xor_recoveries = 0;
  uint64_t uncorrectable_reads = 0;
  uint64_t soft_ecc_errors = 0;
  uint32_t end_to_end_detected = 0, end_to_end_corrected = 0;
  int system_area_used_percent = 0;
  uint64_t refreshes = 0;
  uint32_t most_erases = 0, least_erases = 0;  // of user blocks
  int throttling_events = 0;                   // 8-bit: stays at 255
  // 0 not throttled, 1 to 3 the levels of throttling; others have no meaning.
  int throttling_level = 0;
  uint64_t pcie_correctable_errors = 0;
  uint32_t incomplete_shutdowns = 0;
  int free_blocks_percent = 0;
  // Energy margin of the capacitors, percent: above 100 when new, 1 is just enough to save what was
  // confirmed. nullopt: the drive has none.
  std::optional<int> capacitor_percent;
  uint64_t unaligned_io = 0;
  uint64_t power_loss_starts = 0;
  uint64_t endurance_bytes = 0;
  int log_version = 0;
  // From log version 2 on.
  std::optional<uint64_t> pcie_link_retrainings;
  // From log version 4 on.
  std::optional<int> dies, dies_offline;
  std::optional<uint32_t> command_timeouts;
};

// INVALID_ARGUMENT if page.size() != 512 or the GUID is another. Does not keep `page`.
absl::StatusOr<OcpLog> DecodeOcpLog(std::span<const std::byte> page);

}  // namespace metal::disk
