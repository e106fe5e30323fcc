// Feeds arbitrary bytes to the decoder of the persistent event log: lengths inside it may lie.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "agent/disk/nvme/persistent_events.h"

namespace {

void Decode(std::span<const std::byte> bytes) {
  const auto log = metal::disk::DecodePersistentEvents(bytes);
  if (!log.ok()) return;
  // An event has a header of 24 bytes at least.
  if (log->events.size() * 24 + metal::disk::kPersistentEventHeaderSize > bytes.size() ||
      log->events.size() > metal::disk::kMaxPersistentEvents) {
    __builtin_trap();
  }
  for (const auto& event : log->events) {
    metal::disk::PersistentEventName(event.type);
    metal::disk::HardwareErrorName(event.hardware_error.value_or(0));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  Decode(bytes);
  // The same as the events of a log with a right header.
  std::vector<std::byte> log(metal::disk::kPersistentEventHeaderSize);
  log[0] = std::byte{metal::disk::kPersistentEventLogId};
  log[5] = std::byte{0xff};  // many events
  log.insert(log.end(), bytes.begin(), bytes.end());
  Decode(log);
  return 0;
}
