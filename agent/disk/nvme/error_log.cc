#include "agent/disk/nvme/error_log.h"

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"

namespace metal::disk {
namespace {

constexpr uint16_t kDoNotRetry = 0x8000;

ErrorEntry DecodeEntry(std::span<const std::byte> data) {
  const auto field = LoadLe<uint16_t>(data, 12);
  ErrorEntry entry;
  entry.number = LoadLe<uint64_t>(data, 0);
  entry.queue = LoadLe<uint16_t>(data, 8);
  entry.command = LoadLe<uint16_t>(data, 10);
  entry.status = StatusOfField(field);
  entry.may_succeed_later = (field & kDoNotRetry) == 0;
  entry.lba = LoadLe<uint64_t>(data, 16);
  entry.name_space = LoadLe<uint32_t>(data, 24);
  entry.command_specific = LoadLe<uint64_t>(data, 32);
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<ErrorEntry>> DecodeErrorLog(std::span<const std::byte> page) {
  if (page.empty() || page.size() % kErrorEntrySize != 0 ||
      page.size() > kMaxErrorEntries * kErrorEntrySize) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode error log: {} bytes are not 1 to {} entries of {}", page.size(),
                       kMaxErrorEntries, kErrorEntrySize);
  }
  std::vector<ErrorEntry> entries;
  for (size_t at = 0; at < page.size(); at += kErrorEntrySize) {
    const ErrorEntry entry = DecodeEntry(page.subspan(at, kErrorEntrySize));
    if (entry.number != 0) entries.push_back(entry);
  }
  return entries;
}

}  // namespace metal::disk
