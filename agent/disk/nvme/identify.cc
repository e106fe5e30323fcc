#include "agent/disk/nvme/identify.h"

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"

namespace metal::disk {
namespace {

std::string TextField(std::span<const std::byte> data, size_t offset, size_t length) {
  std::string text;
  for (size_t i = 0; i < length; ++i) {
    const auto byte = std::to_integer<unsigned char>(data[offset + i]);
    if (byte == 0) break;
    text.push_back(byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '?');
  }
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

std::optional<int> CelsiusFromKelvin(uint16_t kelvin) {
  if (kelvin == 0) return std::nullopt;
  return int{kelvin} - 273;
}

}  // namespace

absl::StatusOr<IdentifyController> DecodeIdentifyController(std::span<const std::byte> data) {
  if (data.size() != kIdentifySize) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode identify controller: {} bytes instead of {}", data.size(),
                       kIdentifySize);
  }
  IdentifyController id;
  id.pci_vendor = LoadLe<uint16_t>(data, 0);
  id.serial = TextField(data, 4, 20);
  id.model = TextField(data, 24, 40);
  id.firmware = TextField(data, 64, 8);
  id.max_transfer_exponent = LoadLe<uint8_t>(data, 77);
  id.version = LoadLe<uint32_t>(data, 80);
  id.can_self_test = (LoadLe<uint16_t>(data, 256) & 0x10) != 0;
  id.has_persistent_event_log = (LoadLe<uint8_t>(data, 261) & 0x10) != 0;
  id.error_log_entries = LoadLe<uint8_t>(data, 262) + 1;
  id.warning_celsius = CelsiusFromKelvin(LoadLe<uint16_t>(data, 266));
  id.critical_celsius = CelsiusFromKelvin(LoadLe<uint16_t>(data, 268));
  id.total_capacity = {LoadLe128Saturated(data, 280)};
  id.extended_self_test = absl::Minutes(LoadLe<uint16_t>(data, 316));
  id.volatile_write_cache = (LoadLe<uint8_t>(data, 525) & 1) != 0;
  id.atomic_write_power_fail_blocks = LoadLe<uint16_t>(data, 528) + 1u;
  return id;
}

}  // namespace metal::disk
