#include "agent/backup/wal_leftovers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <tuple>
#include <vector>

#include "agent/backup/wal_segment.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr std::string_view kReady = ".ready";
constexpr std::string_view kDone = ".done";
constexpr size_t kPiece = 1 << 20;

// Names of WAL files that are ready, in the order in which PostgreSQL archives them.
absl::StatusOr<std::vector<std::string>> Ready(const std::string& status_directory) {
  METAL_ASSIGN_OR_RETURN(std::vector<std::string> names, base::ListDirectory(status_directory));
  std::erase_if(names, [](std::string& name) {
    if (!name.ends_with(kReady)) return true;
    name.resize(name.size() - kReady.size());
    return !ParseWalFile(name);
  });
  const auto order = [](const std::string& name) {
    return std::tuple(ParseWalFile(name)->kind != WalFileKind::kHistory, std::string_view(name));
  };
  std::ranges::sort(names, {}, order);
  return names;
}

absl::Status Copy(int from, int to, const std::string& path) {
  std::string piece(kPiece, '\0');
  for (off_t at = 0;;) {
    const ssize_t got = pread(from, piece.data(), piece.size(), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read", path);
    if (got == 0) return absl::OkStatus();
    METAL_RETURN_IF_ERROR(
        base::WriteAll(to, std::string_view(piece).substr(0, static_cast<size_t>(got)), path));
    at += got;
  }
}

// The server may give the file another name and overwrite it at any moment: what was read before
// that is sound, and the name says whether it happened.
bool IsStill(int fd, const std::string& path) {
  struct stat open_file;
  struct stat named;
  return fstat(fd, &open_file) == 0 && stat(path.c_str(), &named) == 0 &&
         open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino;
}

// False: the server has removed it.
absl::StatusOr<bool> ArchiveOne(const LeftoverPlaces& places, const std::string& directory,
                                const std::string& name, WalArchive& archive) {
  const std::string path = base::JoinPath(directory, name);
  const std::string status = base::JoinPath(directory, "archive_status/" + name);
  const std::string ready = status + std::string(kReady);
  const auto file = base::OpenFile(path, O_RDONLY);
  if (absl::IsNotFound(file.status())) {
    unlink(ready.c_str());
    return false;
  }
  METAL_RETURN_IF_ERROR(file.status());
  const std::string scratch = base::JoinPath(places.scratch_directory, "wal-leftover.tmp");
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd copy,
                         base::OpenFile(scratch, O_CREAT | O_TRUNC | O_RDWR));
  unlink(scratch.c_str());
  METAL_RETURN_IF_ERROR(Copy(file->get(), copy.get(), path));
  if (!IsStill(file->get(), path)) return false;
  METAL_RETURN_IF_ERROR(archive.Push(name, copy.get(), places.system_identifier).status());
  const std::string done = status + std::string(kDone);
  if (rename(ready.c_str(), done.c_str()) != 0 && errno != ENOENT) {
    return base::ErrnoStatus(errno, "rename", ready);
  }
  return true;
}

}  // namespace

absl::StatusOr<int> ArchiveLeftovers(const LeftoverPlaces& places, WalArchive& archive) {
  const std::string directory = base::JoinPath(places.data_directory, "pg_wal");
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         Ready(base::JoinPath(directory, "archive_status")));
  int archived = 0;
  absl::Status failed;
  for (const std::string& name : names) {
    const auto done = ArchiveOne(places, directory, name, archive);
    failed.Update(done.status());
    if (done.ok() && *done) ++archived;
  }
  METAL_RETURN_IF_ERROR(failed);
  return archived;
}

}  // namespace metal::backup
