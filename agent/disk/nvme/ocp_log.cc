#include "agent/disk/nvme/ocp_log.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"

namespace metal::disk {
namespace {

// AFD514C97C6F4F9CA4F2BFEA2810AFC5h, as it lies in the page.
constexpr std::array<uint8_t, 16> kGuid = {0xc5, 0xaf, 0x10, 0x28, 0xea, 0xbf, 0xf2, 0xa4,
                                           0x9c, 0x4f, 0x6f, 0x7c, 0xc9, 0x14, 0xd5, 0xaf};
constexpr size_t kGuidOffset = 496;
constexpr uint16_t kNoCapacitor = 0xffff;

uint64_t Load48(std::span<const std::byte> page, size_t offset) {
  return LoadLe<uint64_t>(page, offset) & ((uint64_t{1} << 48) - 1);
}

void DecodeNewerFields(std::span<const std::byte> page, OcpLog& log) {
  if (log.log_version >= 2) log.pcie_link_retrainings = LoadLe<uint64_t>(page, 192);
  if (log.log_version < 4) return;
  log.dies = LoadLe<uint16_t>(page, 216);
  log.dies_offline = LoadLe<uint16_t>(page, 220);
  log.command_timeouts = LoadLe<uint32_t>(page, 232);
}

}  // namespace

absl::StatusOr<OcpLog> DecodeOcpLog(std::span<const std::byte> page) {
  if (page.size() != kOcpLogSize) {
    return base::Error(absl::StatusCode::kInvalidArgument, "decode OCP log: {} bytes instead of {}",
                       page.size(), kOcpLogSize);
  }
  for (size_t i = 0; i < kGuid.size(); ++i) {
    if (LoadLe<uint8_t>(page, kGuidOffset + i) == kGuid.at(i)) continue;
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode OCP log: the page has another GUID, it is some vendor's own");
  }
  OcpLog log;
  log.media_bytes_written = LoadLe128Saturated(page, 0);
  log.media_bytes_read = LoadLe128Saturated(page, 16);
  log.bad_user_blocks = Load48(page, 32);
  log.bad_user_blocks_left = LoadLe<uint16_t>(page, 38);
  log.bad_system_blocks = Load48(page, 40);
  log.bad_system_blocks_left = LoadLe<uint16_t>(page, 46);
  log.xor_recoveries = LoadLe<uint64_t>(page, 48);
  log.uncorrectable_reads = LoadLe<uint64_t>(page, 56);
  log.soft_ecc_errors = LoadLe<uint64_t>(page, 64);
  // Drives and tools disagree about which of a pair comes first.
  std::tie(log.end_to_end_corrected, log.end_to_end_detected) =
      std::minmax({LoadLe<uint32_t>(page, 72), LoadLe<uint32_t>(page, 76)});
  log.system_area_used_percent = LoadLe<uint8_t>(page, 80);
  log.refreshes = LoadLe<uint64_t>(page, 80) >> 8;
  std::tie(log.least_erases, log.most_erases) =
      std::minmax({LoadLe<uint32_t>(page, 88), LoadLe<uint32_t>(page, 92)});
  log.throttling_events = LoadLe<uint8_t>(page, 96);
  log.throttling_level = LoadLe<uint8_t>(page, 97);
  log.pcie_correctable_errors = LoadLe<uint64_t>(page, 104);
  log.incomplete_shutdowns = LoadLe<uint32_t>(page, 112);
  log.free_blocks_percent = LoadLe<uint8_t>(page, 120);
  if (const auto percent = LoadLe<uint16_t>(page, 128); percent != kNoCapacitor) {
    log.capacitor_percent = percent;
  }
  log.unaligned_io = LoadLe<uint64_t>(page, 136);
  log.power_loss_starts = LoadLe128Saturated(page, 160);
  log.endurance_bytes = LoadLe128Saturated(page, 176);
  log.log_version = LoadLe<uint16_t>(page, 494);
  DecodeNewerFields(page, log);
  return log;
}

}  // namespace metal::disk
