#include "agent/pg/wal_cut.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr size_t kChunk = 1 << 18;  // bytes

// Whether anything but zeros was there.
absl::StatusOr<bool> MakeZeroFrom(const std::string& path, uint64_t offset) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd file, base::OpenFile(path, O_RDWR));
  std::vector<char> chunk(kChunk);
  const std::vector<char> zeros(kChunk);
  bool changed = false;
  while (true) {
    const ssize_t got = pread(file.get(), chunk.data(), chunk.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read", path);
    if (got == 0) break;
    const std::string_view piece(zeros.data(), static_cast<size_t>(got));
    if (std::string_view(chunk.data(), static_cast<size_t>(got)) != piece) {
      changed = true;
      if (lseek(file.get(), static_cast<off_t>(offset), SEEK_SET) < 0) {
        return base::ErrnoStatus(errno, "seek", path);
      }
      METAL_RETURN_IF_ERROR(base::WriteAll(file.get(), piece, path));
    }
    offset += static_cast<uint64_t>(got);
  }
  // Also when a run before this one wrote them and died.
  if (fsync(file.get()) != 0) return base::ErrnoStatus(errno, "sync", path);
  METAL_RETURN_IF_ERROR(base::Annotate(file.Close(), path));
  return changed;
}

absl::Status Remove(const std::string& path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return base::ErrnoStatus(errno, "remove", path);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> CutWal(const std::string& data_dir,
                                                base::TimelineId timeline, base::Lsn from,
                                                uint64_t wal_segment_size) {
  const std::string wal = base::JoinPath(data_dir, "pg_wal");
  METAL_ASSIGN_OR_RETURN(std::vector<std::string> names, base::ListDirectory(wal));
  // From the end: a run that dies leaves no hole behind which WAL of the timeline goes on.
  std::ranges::sort(names, std::greater());
  std::vector<std::string> changed;
  for (const std::string& name : names) {
    const auto segment = base::ParseWalFileName(name, wal_segment_size);
    if (!segment || segment->timeline != timeline) continue;
    if (segment->start.value + wal_segment_size <= from.value) continue;
    const std::string path = base::JoinPath(wal, name);
    if (segment->start < from) {
      METAL_ASSIGN_OR_RETURN(const bool had_more,
                             MakeZeroFrom(path, from.value - segment->start.value));
      if (had_more) changed.push_back(name);
      continue;
    }
    METAL_RETURN_IF_ERROR(Remove(path));
    for (const char* suffix : {".ready", ".done"}) {
      METAL_RETURN_IF_ERROR(Remove(base::JoinPath(wal, "archive_status/" + name + suffix)));
    }
    changed.push_back(name);
  }
  METAL_RETURN_IF_ERROR(base::SyncDirectory(wal));
  std::ranges::reverse(changed);
  return changed;
}

}  // namespace metal::pg
