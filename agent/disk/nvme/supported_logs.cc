#include "agent/disk/nvme/supported_logs.h"

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"

namespace metal::disk {

absl::StatusOr<std::bitset<256>> DecodeSupportedLogs(std::span<const std::byte> page) {
  if (page.size() != kSupportedLogsSize) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode list of logs: {} bytes instead of {}", page.size(),
                       kSupportedLogsSize);
  }
  std::bitset<256> logs;
  for (size_t id = 0; id < logs.size(); ++id) logs[id] = (LoadLe<uint32_t>(page, 4 * id) & 1) != 0;
  return logs;
}

}  // namespace metal::disk
