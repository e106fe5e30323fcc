#include "agent/disk/space/reserve_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <utility>

#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr uint64_t kStatBlock = 512;
constexpr uint64_t kUseful = 64 * base::kMiB;  // what a server needs to start and to write WAL

absl::Status Allocate(int fd, const std::string& path, uint64_t size) {
  // The kernel finds out that it does not fit by giving it all there is, and a server beside it
  // then has none for its WAL.
  METAL_ASSIGN_OR_RETURN(const base::FilesystemRoom room, base::ReadFilesystemRoom(path));
  if (room.free_bytes < size) return base::ErrnoStatus(ENOSPC, "allocate", path);
  while (fallocate(fd, 0, 0, static_cast<off_t>(size)) != 0) {
    if (errno == EINTR) continue;
    if (errno != EOPNOTSUPP) return base::ErrnoStatus(errno, "allocate", path);
    return base::Error(absl::StatusCode::kUnimplemented,
                       "allocate {}: the file system cannot. HINT: disk.reserve = \"0B\"", path);
  }
  if (fsync(fd) != 0) return base::ErrnoStatus(errno, "fsync", path);
  struct stat info {};
  if (fstat(fd, &info) != 0) return base::ErrnoStatus(errno, "stat", path);
  if (static_cast<uint64_t>(info.st_blocks) * kStatBlock >= size) return absl::OkStatus();
  return base::Error(absl::StatusCode::kUnimplemented,
                     "allocate {}: the file system holds less than was asked for. HINT: "
                     "disk.reserve = \"0B\"",
                     path);
}

}  // namespace

ReservePlace ReservePlaceOf(const std::string& directory) {
  char real[PATH_MAX];
  struct stat own {
  }, beside{};
  if (realpath(directory.c_str(), real) == nullptr || stat(real, &own) != 0) {
    return {"", fmt::format("{} cannot be looked at", directory)};
  }
  const std::string path = real, parent = base::DirectoryOf(path);
  if (stat(parent.c_str(), &beside) != 0 || beside.st_dev != own.st_dev) {
    return {"",
            fmt::format("{} is the root of its file system, so nothing can lie beside it. HINT: "
                        "use a directory below the mount point",
                        path)};
  }
  return {base::JoinPath(parent, ".metal-reserve-" + path.substr(path.rfind('/') + 1)), ""};
}

base::ByteCount ReserveSize(const base::FilesystemRoom& room, base::ByteCount configured) {
  const uint64_t share = std::max(room.size_bytes / 100, kUseful);
  return {std::min({configured.value, share, room.size_bytes / 4})};
}

absl::StatusOr<uint64_t> ReserveKept(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) == 0) return static_cast<uint64_t>(info.st_blocks) * kStatBlock;
  if (errno == ENOENT) return 0;
  return base::ErrnoStatus(errno, "look for", path);
}

absl::Status MakeReserve(const std::string& path, base::ByteCount size) {
  METAL_RETURN_IF_ERROR(GiveReserveBack(path).status());
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd fd,
                         base::OpenFile(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  absl::Status made = Allocate(fd.get(), path, size.value);
  if (!made.ok()) unlink(path.c_str());
  return made;
}

absl::StatusOr<uint64_t> GiveReserveBack(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const uint64_t kept, ReserveKept(path));
  if (unlink(path.c_str()) == 0) return kept;
  if (errno == ENOENT) return 0;
  return base::ErrnoStatus(errno, "remove", path);
}

}  // namespace metal::disk
