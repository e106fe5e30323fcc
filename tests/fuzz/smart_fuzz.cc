// Feeds arbitrary bytes to the decoders of drive pages: they must answer or reject, never read
// outside.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "agent/disk/inventory.h"
#include "agent/disk/nvme/identify.h"
#include "agent/disk/nvme/smart_log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  for (const size_t length : {size, metal::disk::kSmartLogSize, metal::disk::kIdentifySize}) {
    std::vector<std::byte> page(length);
    std::copy_n(bytes.begin(), std::min(length, size), page.begin());
    if (const auto log = metal::disk::DecodeSmartLog(page); log.ok()) {
      metal::disk::CriticalWarningNames(log->critical_warning);
    }
    if (const auto id = metal::disk::DecodeIdentifyController(page); id.ok()) {
      for (const char c : id->serial + id->model + id->firmware) {
        if (c < 0x20 || c > 0x7e) __builtin_trap();
      }
    }
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  metal::disk::FindMount(metal::disk::ParseMountInfo(text), "/data/pg");
  return 0;
}
