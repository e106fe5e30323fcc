#include "agent/pg/wal_record.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr uint64_t kShortHeader = 24;  // SizeOfXLogShortPHD
constexpr uint64_t kLongHeader = 40;   // SizeOfXLogLongPHD, on the first page of a segment
constexpr uint64_t kAlignment = 8;     // MAXALIGN
constexpr uint32_t kSmallest = 24;     // SizeOfXLogRecord

}  // namespace

base::Lsn RecordEnd(base::Lsn start, uint32_t length, uint64_t wal_segment_size,
                    uint32_t wal_block_size) {
  uint64_t at = start.value;
  uint64_t left = (length + kAlignment - 1) / kAlignment * kAlignment;
  while (true) {
    const uint64_t page_left = wal_block_size - at % wal_block_size;
    const uint64_t taken = std::min(left, page_left);
    at += taken;
    left -= taken;
    if (left == 0) return base::Lsn{at};
    at += at % wal_segment_size == 0 ? kLongHeader : kShortHeader;
  }
}

absl::StatusOr<base::Lsn> ReadRecordEnd(const std::string& data_dir, const RecordPlace& place) {
  const uint64_t segments_per_id = (uint64_t{1} << 32) / place.wal_segment_size;
  const uint64_t segment = place.start.value / place.wal_segment_size;
  const std::string path = fmt::format("{}/pg_wal/{:08X}{:08X}{:08X}", data_dir, place.timeline,
                                       segment / segments_per_id, segment % segments_per_id);
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd file, base::OpenFile(path, O_RDONLY));
  uint32_t length = 0;
  const auto offset = static_cast<off_t>(place.start.value % place.wal_segment_size);
  const ssize_t got = pread(file.get(), &length, sizeof length, offset);
  if (got < 0) return base::ErrnoStatus(errno, "read", path);
  if (got != sizeof length || length < kSmallest || length > (uint32_t{1} << 30)) {
    return base::Error(absl::StatusCode::kDataLoss, "{}: no record at {}", path,
                       place.start.ToString());
  }
  return RecordEnd(place.start, length, place.wal_segment_size, place.wal_block_size);
}

}  // namespace metal::pg
