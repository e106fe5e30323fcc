#include "agent/disk/nvme/identify.h"

#include <algorithm>

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"
#include "agent/disk/nvme/page_text.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

std::optional<int> CelsiusFromKelvin(uint16_t kelvin) {
  if (kelvin == 0) return std::nullopt;
  return int{kelvin} - 273;
}

absl::Status CheckSize(std::span<const std::byte> data, const char* what) {
  if (data.size() == kIdentifySize) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "decode identify {}: {} bytes instead of {}", what, data.size(),
                     kIdentifySize);
}

}  // namespace

absl::StatusOr<IdentifyController> DecodeIdentifyController(std::span<const std::byte> data) {
  METAL_RETURN_IF_ERROR(CheckSize(data, "controller"));
  const auto log_attributes = LoadLe<uint8_t>(data, 261);
  IdentifyController id;
  id.pci_vendor = LoadLe<uint16_t>(data, 0);
  id.serial = LoadText(data, 4, 20);
  id.model = LoadText(data, 24, 40);
  id.firmware = LoadText(data, 64, 8);
  id.max_transfer_exponent = LoadLe<uint8_t>(data, 77);
  id.version = LoadLe<uint32_t>(data, 80);
  id.can_self_test = (LoadLe<uint16_t>(data, 256) & 0x10) != 0;
  id.has_log_offsets = (log_attributes & 0x04) != 0;
  id.has_persistent_event_log = (log_attributes & 0x10) != 0;
  id.lists_its_logs = (log_attributes & 0x20) != 0;
  id.error_log_entries = LoadLe<uint8_t>(data, 262) + 1;
  id.warning_celsius = CelsiusFromKelvin(LoadLe<uint16_t>(data, 266));
  id.critical_celsius = CelsiusFromKelvin(LoadLe<uint16_t>(data, 268));
  id.total_capacity = {LoadLe128Saturated(data, 280)};
  id.extended_self_test = absl::Minutes(LoadLe<uint16_t>(data, 316));
  id.volatile_write_cache = (LoadLe<uint8_t>(data, 525) & 1) != 0;
  id.atomic_write_blocks = LoadLe<uint16_t>(data, 526) + 1u;
  id.atomic_write_power_fail_blocks = LoadLe<uint16_t>(data, 528) + 1u;
  return id;
}

absl::StatusOr<IdentifyNamespace> DecodeIdentifyNamespace(std::span<const std::byte> data) {
  METAL_RETURN_IF_ERROR(CheckSize(data, "namespace"));
  const auto features = LoadLe<uint8_t>(data, 24);
  const auto format_in_use = LoadLe<uint8_t>(data, 26);
  IdentifyNamespace ns;
  ns.size_blocks = LoadLe<uint64_t>(data, 0);
  ns.capacity_blocks = LoadLe<uint64_t>(data, 8);
  ns.used_blocks = LoadLe<uint64_t>(data, 16);
  // Bits 6:5 extend the index where there are more than 16 formats (NVMe 2.0).
  const size_t index = (format_in_use & 0xfu) | ((format_in_use & 0x60u) >> 1);
  const auto format = LoadLe<uint32_t>(data, 128 + 4 * index);
  const uint32_t exponent = (format >> 16) & 0xff;
  if (exponent >= 9 && exponent < 32) ns.block_size = 1u << exponent;
  ns.metadata_size = format & 0xffff;
  ns.protection = LoadLe<uint8_t>(data, 29) & 7;
  if ((features & 2) != 0) ns.atomic_write_power_fail_blocks = LoadLe<uint16_t>(data, 36) + 1u;
  const auto unique = data.subspan(104, 16);
  if (std::any_of(unique.begin(), unique.end(), [](std::byte b) { return b != std::byte{0}; })) {
    for (const std::byte b : unique) {
      ns.globally_unique_id += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    }
  }
  return ns;
}

}  // namespace metal::disk
