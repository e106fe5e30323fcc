#include "agent/backup/directory_walk.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "agent/backup/copy_rules.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr size_t kDepthMax = 64;
constexpr size_t kSpecialFilesKept = 100;
constexpr uint32_t kModeBits = 07777;

bool Vanished(int error) { return error == ENOENT || error == ENOTDIR; }

std::string Under(const std::string& directory, const char* name) {
  return directory.empty() ? std::string(name) : directory + "/" + name;
}

absl::StatusOr<std::string> ReadLink(int directory_fd, const char* name, const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlinkat(directory_fd, name, target, sizeof target);
  if (length < 0) return base::ErrnoStatus(errno, "read link", path);
  return std::string(target, static_cast<size_t>(length));
}

}  // namespace

DirectoryWalk::DirectoryWalk(WalkOptions options)
    : options_(std::move(options)),
      version_directory_(
          TablespaceVersionDirectory(options_.major_version, options_.catalog_version)) {}

DirectoryWalk::~DirectoryWalk() {
  while (!levels_.empty()) Pop();
}

absl::Status DirectoryWalk::Push(int parent_fd, const char* name, std::string path,
                                 bool version_only) {
  if (levels_.size() >= kDepthMax) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "walk {}: nested deeper than {} at {}. HINT: look for a symbolic link that "
                       "leads back",
                       options_.data_directory, kDepthMax, path);
  }
  const int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    if (!path.empty() && Vanished(errno)) return absl::OkStatus();
    return base::ErrnoStatus(errno, "open directory",
                             base::JoinPath(options_.data_directory, path));
  }
  DIR* stream = fdopendir(fd);
  if (stream == nullptr) {
    const int error = errno;
    close(fd);
    return base::ErrnoStatus(error, "open directory", path);
  }
  Level level;
  level.stream = stream;
  level.relations = IsRelationDirectory(path);
  level.tablespace_links = path == "pg_tblspc";
  level.version_only = version_only;
  level.path = std::move(path);
  levels_.push_back(std::move(level));
  init_checked_.clear();
  return absl::OkStatus();
}

void DirectoryWalk::Pop() {
  closedir(levels_.back().stream);
  levels_.pop_back();
  init_checked_.clear();
}

// Finds where the tablespaces are before anything is walked: one may lie inside the data directory.
absl::Status DirectoryWalk::Begin() {
  begun_ = true;
  const std::string links = base::JoinPath(options_.data_directory, "pg_tblspc");
  auto names = base::ListDirectory(links);
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  if (names.ok()) {
    for (const std::string& name : *names) {
      const std::string link = base::JoinPath(links, name);
      struct stat status {};
      if (lstat(link.c_str(), &status) != 0) {
        if (Vanished(errno)) continue;
        return base::ErrnoStatus(errno, "look for", link);
      }
      if (!S_ISLNK(status.st_mode)) continue;
      if (stat(link.c_str(), &status) == 0) tablespace_ids_.emplace(status.st_dev, status.st_ino);
    }
  }
  return Push(AT_FDCWD, options_.data_directory.c_str(), "", false);
}

void DirectoryWalk::QueueEmptyDirectories(const std::string& path, uint32_t mode) {
  if (path != "pg_wal") return;
  const auto queue = [&](const char* name) {
    WalkEntry entry;
    entry.kind = WalkKind::kDirectory;
    entry.path = path + "/" + name;
    entry.mode = mode;
    queued_.push_back(std::move(entry));
  };
  if (options_.major_version >= 17) queue("summaries");
  queue("archive_status");
}

absl::StatusOr<bool> DirectoryWalk::TakeDirectory(const struct stat& status, const char* name,
                                                  std::string path, WalkEntry& entry) {
  const Level& level = levels_.back();
  if (level.version_only && version_directory_ != name) return false;
  EntryAction action = ClassifyDirectory(path);
  if (action == EntryAction::kSkip) return false;
  const bool inside_tablespace = path.compare(0, 10, "pg_tblspc/") == 0;
  if (!inside_tablespace && tablespace_ids_.count({status.st_dev, status.st_ino}) != 0) {
    return false;
  }
  entry.kind = WalkKind::kDirectory;
  entry.path = path;
  entry.mode = status.st_mode & kModeBits;
  if (action == EntryAction::kKeepEmpty) {
    QueueEmptyDirectories(path, entry.mode);
    return true;
  }
  const bool in_place_tablespace = level.tablespace_links && ParseOid(name).has_value();
  METAL_RETURN_IF_ERROR(Push(dirfd(level.stream), name, std::move(path), in_place_tablespace));
  return true;
}

// PostgreSQL resets an unlogged relation from its init fork at the end of recovery: only that fork
// is worth copying.
bool DirectoryWalk::HasInitFork(int directory_fd, std::string_view relation) {
  if (init_checked_ != relation) {
    init_checked_ = relation;
    const std::string name = init_checked_ + "_init";
    init_answer_ = faccessat(directory_fd, name.c_str(), F_OK, 0) == 0;
  }
  return init_answer_;
}

absl::StatusOr<bool> DirectoryWalk::TakeFile(const struct stat& status, const char* name,
                                             std::string path, WalkEntry& entry) {
  const Level& level = levels_.back();
  if (level.version_only) return false;
  if (ClassifyFile(path) != EntryAction::kCopy) return false;
  entry.kind = WalkKind::kFile;
  entry.directory_fd = dirfd(level.stream);
  entry.name = name;
  entry.size = static_cast<uint64_t>(status.st_size);
  entry.mode = status.st_mode & kModeBits;
  entry.relation = false;
  entry.segment = 0;
  if (level.relations) {
    const auto relation = ParseRelationFile(name);
    if (relation && relation->fork != RelationFork::kInit &&
        HasInitFork(entry.directory_fd, relation->relation)) {
      return false;
    }
    entry.relation = relation.has_value();
    entry.segment = relation ? relation->segment : 0;
  }
  entry.path = std::move(path);
  return true;
}

absl::StatusOr<bool> DirectoryWalk::TakeTablespace(const struct stat& status, const char* name,
                                                   std::string path, WalkEntry& entry) {
  const auto oid = ParseOid(name);
  if (!oid || !S_ISDIR(status.st_mode)) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "walk {}: {} is not a tablespace. HINT: remove the link, or move it out of "
                       "pg_tblspc",
                       options_.data_directory, path);
  }
  const int fd = dirfd(levels_.back().stream);
  METAL_ASSIGN_OR_RETURN(entry.location, ReadLink(fd, name, path));
  if (entry.location.empty() || entry.location[0] != '/') {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "walk {}: tablespace link {} points to the relative path {}. HINT: make it "
                       "absolute",
                       options_.data_directory, path, entry.location);
  }
  entry.kind = WalkKind::kTablespace;
  entry.oid = *oid;
  entry.mode = status.st_mode & kModeBits;
  entry.path = path;
  given_tablespaces_.insert(*oid);
  METAL_RETURN_IF_ERROR(Push(fd, name, std::move(path), true));
  return true;
}

// A tablespace, linked or in place, that is not among those to be walked.
bool DirectoryWalk::IsLaterTablespace(const char* name) {
  if (!levels_.back().tablespace_links || !options_.tablespaces) return false;
  const auto oid = ParseOid(name);
  if (!oid || options_.tablespaces->contains(*oid)) return false;
  later_tablespaces_.insert(*oid);
  return true;
}

// True when `entry` was filled in.
absl::StatusOr<bool> DirectoryWalk::Take(const char* name, WalkEntry& entry) {
  const Level& level = levels_.back();
  const int fd = dirfd(level.stream);
  if (IsLaterTablespace(name)) return false;
  std::string path = Under(level.path, name);
  struct stat status {};
  if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (Vanished(errno)) return false;
    return base::ErrnoStatus(errno, "stat", path);
  }
  if (S_ISLNK(status.st_mode)) {
    if (fstatat(fd, name, &status, 0) != 0) {
      struct stat link {};
      if (Vanished(errno) && fstatat(fd, name, &link, AT_SYMLINK_NOFOLLOW) != 0) return false;
      return base::Error(absl::StatusCode::kFailedPrecondition,
                         "walk {}: symbolic link {} leads nowhere. HINT: remove it or restore its "
                         "target",
                         options_.data_directory, path);
    }
    if (level.tablespace_links) return TakeTablespace(status, name, std::move(path), entry);
  }
  if (S_ISDIR(status.st_mode)) return TakeDirectory(status, name, std::move(path), entry);
  if (S_ISREG(status.st_mode)) return TakeFile(status, name, std::move(path), entry);
  if (special_files_.size() < kSpecialFilesKept) special_files_.push_back(std::move(path));
  return false;
}

absl::Status DirectoryWalk::Next(WalkEntry& entry) {
  if (!begun_) METAL_RETURN_IF_ERROR(Begin());
  if (!queued_.empty()) {
    entry = std::move(queued_.back());
    queued_.pop_back();
    return absl::OkStatus();
  }
  while (!levels_.empty()) {
    errno = 0;
    const dirent* found = readdir(levels_.back().stream);
    if (found == nullptr) {
      if (errno != 0) return base::ErrnoStatus(errno, "read directory", levels_.back().path);
      Pop();
      continue;
    }
    const std::string_view name = found->d_name;
    if (name == "." || name == "..") continue;
    METAL_ASSIGN_OR_RETURN(const bool taken, Take(found->d_name, entry));
    if (taken) return absl::OkStatus();
  }
  entry.kind = WalkKind::kEnd;
  return absl::OkStatus();
}

}  // namespace metal::backup
