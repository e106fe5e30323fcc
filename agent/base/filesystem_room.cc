#include "agent/base/filesystem_room.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>

#include "agent/base/status.h"

namespace metal::base {
namespace {

constexpr uint64_t kFewWalFiles = 64 * kMiB;
constexpr uint64_t kInodesOfAServer = 1000;

double Share(uint64_t used, uint64_t free) {
  const double all = static_cast<double>(used) + static_cast<double>(free);
  return all > 0 ? 100.0 * static_cast<double>(used) / all : 0;
}

}  // namespace

absl::StatusOr<FilesystemRoom> ReadFilesystemRoom(const std::string& path) {
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) != 0) return ErrnoStatus(errno, "statvfs", path);
  FilesystemRoom room;
  room.id = info.f_fsid;
  room.size_bytes = uint64_t{info.f_blocks} * info.f_frsize;
  room.used_bytes = (uint64_t{info.f_blocks} - info.f_bfree) * info.f_frsize;
  room.free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  room.inodes = info.f_files;
  room.free_inodes = info.f_favail;
  return room;
}

double UsedPercent(const FilesystemRoom& room) { return Share(room.used_bytes, room.free_bytes); }

double InodesUsedPercent(const FilesystemRoom& room) {
  if (room.inodes == 0) return 0;
  return Share(room.inodes - std::min(room.inodes, room.free_inodes), room.free_inodes);
}

ByteCount LeastFree(const FilesystemRoom& room, int read_only_at) {
  const uint64_t all = room.used_bytes + room.free_bytes;
  const uint64_t beyond =
      read_only_at > 0 ? all / 100 * static_cast<uint64_t>(100 - std::min(read_only_at, 100)) : 0;
  return {std::max(beyond, std::min(kFewWalFiles, all / 10))};
}

uint64_t LeastFreeInodes(const FilesystemRoom& room) {
  return std::min(kInodesOfAServer, room.inodes / 100);
}

}  // namespace metal::base
