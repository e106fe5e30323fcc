#include "agent/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "agent/base/status.h"

namespace metal::base {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using UniqueDirectory = std::unique_ptr<DIR, CloseDirectory>;

bool IsDotOrDotDot(std::string_view name) { return name == "." || name == ".."; }

// Names in an open directory; takes the descriptor. `path` is for messages.
absl::StatusOr<std::vector<std::string>> ReadNames(UniqueFd fd, const std::string& path) {
  UniqueDirectory directory(fdopendir(fd.get()));
  if (!directory) return ErrnoStatus(errno, "open directory", path);
  fd.Release();
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) break;
    if (!IsDotOrDotDot(entry->d_name)) names.emplace_back(entry->d_name);
  }
  if (errno != 0) return ErrnoStatus(errno, "read directory", path);
  std::sort(names.begin(), names.end());
  return names;
}

// Removes `name` in the directory `parent`; `path` is its full name, for messages.
absl::Status RemoveAt(int parent, const std::string& name, const std::string& path,
                      const std::function<bool()>& stop) {
  if (stop && stop()) return Error(absl::StatusCode::kCancelled, "remove {}: was cancelled", path);
  if (unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return absl::OkStatus();
  if (errno != EISDIR && errno != EPERM) return ErrnoStatus(errno, "remove", path);
  const int unlink_error = errno;
  UniqueFd fd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) return absl::OkStatus();
    // Not a directory after all: what unlink said is the reason.
    return ErrnoStatus(errno == ENOTDIR || errno == ELOOP ? unlink_error : errno, "remove", path);
  }
  UniqueFd listing(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!listing.valid()) return ErrnoStatus(errno, "remove", path);
  METAL_ASSIGN_OR_RETURN(const auto names, ReadNames(std::move(listing), path));
  for (const std::string& child : names) {
    METAL_RETURN_IF_ERROR(RemoveAt(fd.get(), child, JoinPath(path, child), stop));
  }
  if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, "remove directory", path);
  }
  return absl::OkStatus();
}

// Creates, fills and syncs a file that must not exist yet.
absl::Status WriteNewFile(const std::string& path, std::string_view contents, mode_t mode) {
  METAL_ASSIGN_OR_RETURN(UniqueFd fd,
                         OpenFile(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode));
  if (fchmod(fd.get(), mode) != 0) return ErrnoStatus(errno, "set mode of", path);
  METAL_RETURN_IF_ERROR(WriteAll(fd.get(), contents, path));
  if (fsync(fd.get()) != 0) return ErrnoStatus(errno, "fsync", path);
  return Annotate(fd.Close(), path);
}

}  // namespace

absl::StatusOr<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode) {
  while (true) {
    UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC, mode));
    if (fd.valid()) return fd;
    if (errno != EINTR) return ErrnoStatus(errno, "open", path);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit) {
  METAL_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  constexpr size_t kStep = 64 << 10;  // a /proc file does not tell its size beforehand
  std::string contents;
  while (true) {
    const size_t before = contents.size();
    contents.resize(before + kStep);
    const ssize_t got = read(fd.get(), contents.data() + before, kStep);
    if (got < 0 && errno != EINTR) return ErrnoStatus(errno, "read", path);
    contents.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (contents.size() > limit) {
      return Error(absl::StatusCode::kOutOfRange, "read {}: longer than {} bytes", path, limit);
    }
    if (got == 0) return contents;
  }
}

absl::Status WriteFileDurably(const std::string& path, std::string_view contents, mode_t mode) {
  static std::atomic<unsigned> counter{0};
  const std::string temporary = fmt::format("{}.tmp-{}-{}", path, getpid(), counter.fetch_add(1));
  absl::Status status = WriteNewFile(temporary, contents, mode);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename to", path);
  }
  if (!status.ok()) {
    unlink(temporary.c_str());  // may not exist; what failed before is what the caller needs
    return status;
  }
  return SyncDirectory(DirectoryOf(path));
}

absl::Status WriteAll(int fd, std::string_view data, std::string_view path) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write", path);
    }
    if (written == 0) return ErrnoStatus(EIO, "write", path);
    data.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  if (fsync(fd.get()) != 0) return ErrnoStatus(errno, "fsync", path);
  return absl::OkStatus();
}

absl::Status MakeDirectories(const std::string& path, mode_t mode) {
  for (size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string prefix = path.substr(0, end);
    if (prefix.empty() || prefix.back() == '/') continue;
    if (mkdir(prefix.c_str(), mode) == 0) {
      if (chmod(prefix.c_str(), mode) != 0) return ErrnoStatus(errno, "set mode of", prefix);
      METAL_RETURN_IF_ERROR(SyncDirectory(DirectoryOf(prefix)));
      continue;
    }
    const int error = errno;
    struct stat info {};
    // A read-only parent gives EROFS or EACCES although the directory is there.
    if (stat(prefix.c_str(), &info) != 0) return ErrnoStatus(error, "create directory", prefix);
    if (!S_ISDIR(info.st_mode)) return ErrnoStatus(ENOTDIR, "create directory", prefix);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY));
  return ReadNames(std::move(fd), path);
}

absl::Status RemoveTree(const std::string& path, const std::function<bool()>& stop) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  return RemoveAt(AT_FDCWD, trimmed, trimmed, stop);
}

absl::StatusOr<bool> Exists(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return ErrnoStatus(errno, "look for", path);
}

bool PathExists(const std::string& path) {
  struct stat info {};
  return lstat(path.c_str(), &info) == 0;
}

absl::Status RenameNoReplace(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
    return absl::OkStatus();
  }
  if (errno != EINVAL && errno != ENOSYS) return ErrnoStatus(errno, "rename to", to);
  // Filesystems without RENAME_NOREPLACE (NFS) have link, which refuses an existing name too.
  if (link(from.c_str(), to.c_str()) != 0) return ErrnoStatus(errno, "link to", to);
  if (unlink(from.c_str()) != 0) return ErrnoStatus(errno, "unlink", from);
  return absl::OkStatus();
}

std::string JoinPath(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  while (!name.empty() && name.front() == '/') name.remove_prefix(1);
  return fmt::format("{}{}{}", directory, directory.back() == '/' ? "" : "/", name);
}

std::string DirectoryOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(slash == 0 ? "/" : path.substr(0, slash));
}

}  // namespace metal::base
