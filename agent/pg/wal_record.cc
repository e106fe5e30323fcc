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

// Reads `size` bytes of the record at `place`, whose path `path` becomes.
absl::Status ReadAt(const std::string& data_dir, const RecordPlace& place, void* bytes, size_t size,
                    std::string& path) {
  path = fmt::format("{}/pg_wal/{}", data_dir,
                     base::WalFileName(place.timeline, place.start, place.wal_segment_size));
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd file, base::OpenFile(path, O_RDONLY));
  const auto offset = static_cast<off_t>(place.start.value % place.wal_segment_size);
  const ssize_t got = pread(file.get(), bytes, size, offset);
  if (got < 0) return base::ErrnoStatus(errno, "read", path);
  if (got == static_cast<ssize_t>(size)) return absl::OkStatus();
  return base::Error(absl::StatusCode::kDataLoss, "{}: no record at {}", path,
                     place.start.ToString());
}

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
  std::string path;
  uint32_t length = 0;
  METAL_RETURN_IF_ERROR(ReadAt(data_dir, place, &length, sizeof length, path));
  if (length < kSmallest || length > (uint32_t{1} << 30)) {
    return base::Error(absl::StatusCode::kDataLoss, "{}: no record at {}", path,
                       place.start.ToString());
  }
  return RecordEnd(place.start, length, place.wal_segment_size, place.wal_block_size);
}

absl::StatusOr<base::Lsn> ReadCheckpointRedo(const std::string& data_dir,
                                             const RecordPlace& place) {
  // XLogRecord (xl_info at 16, xl_rmid at 17), XLogRecordDataHeaderShort, CheckPoint.redo.
  constexpr size_t kInfo = 16, kManager = 17, kDataId = 24, kRedo = 26;
  constexpr uint8_t kShortData = 255, kOnlineCheckpoint = 0x10;
  uint8_t record[kRedo + sizeof(uint64_t)];
  if (place.start.value % place.wal_block_size + sizeof record > place.wal_block_size) {
    return absl::OutOfRangeError("the checkpoint record goes over the end of a page");
  }
  std::string path;
  METAL_RETURN_IF_ERROR(ReadAt(data_dir, place, record, sizeof record, path));
  if (record[kManager] != 0 || (record[kInfo] & 0xf0) > kOnlineCheckpoint ||
      record[kDataId] != kShortData) {
    return base::Error(absl::StatusCode::kDataLoss, "{}: no checkpoint record at {}", path,
                       place.start.ToString());
  }
  base::Lsn redo;
  std::memcpy(&redo.value, record + kRedo, sizeof redo.value);
  return redo;
}

}  // namespace metal::pg
