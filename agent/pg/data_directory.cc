#include "agent/pg/data_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr base::ByteCount kLeastFree{16 * base::kMiB};  // one WAL segment

std::string RealPath(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : "";
}

base::ByteCount FreeSpace(const std::string& path) {
  struct statvfs info;
  if (path.empty() || statvfs(path.c_str(), &info) != 0)
    return {UINT64_MAX};  // unknown is not full
  return {static_cast<uint64_t>(info.f_bavail) * info.f_frsize};
}

// What is left of a sentinel that was cut off while it was written, and a restore's lock. They say
// nothing and are no content.
bool IsBesideSentinel(const std::string& name) {
  return name.starts_with(std::string(kIncompleteSentinel) + ".");
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

int ReadMajor(const std::string& data_dir) {
  const absl::StatusOr<std::string> text =
      base::ReadFile(base::JoinPath(data_dir, "PG_VERSION"), 64);
  int major = 0;
  if (text.ok()) std::from_chars(text->data(), text->data() + text->size(), major);
  return major;
}

absl::Status ReadTablespaces(const std::string& data_dir, std::vector<TablespaceLink>& links) {
  const std::string parent = base::JoinPath(data_dir, "pg_tblspc");
  absl::StatusOr<std::vector<std::string>> names = base::ListDirectory(parent);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    TablespaceLink link;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), link.oid);
    if (error != std::errc() || end != name.data() + name.size()) continue;
    const std::string path = base::JoinPath(parent, name);
    char target[PATH_MAX];
    const ssize_t length = readlink(path.c_str(), target, sizeof target);
    if (length < 0 && errno == ENOENT) continue;  // dropped meanwhile
    if (length < 0 && errno != EINVAL) return base::ErrnoStatus(errno, "read link", path);
    link.in_place = length < 0;
    link.location = link.in_place ? path : std::string(target, static_cast<size_t>(length));
    links.push_back(std::move(link));
  }
  return absl::OkStatus();
}

absl::Status ReadContents(DataDirectory& directory) {
  const std::string& path = directory.path;
  absl::StatusOr<std::vector<std::string>> names = base::ListDirectory(path);
  if (absl::IsPermissionDenied(names.status())) {
    directory.kind = DataDirectoryKind::kForeign;  // its owner and mode say why
    return absl::OkStatus();
  }
  if (!names.ok()) return names.status();
  std::erase_if(*names, IsBesideSentinel);
  const auto has = [&](const char* name) {
    return std::find(names->begin(), names->end(), name) != names->end();
  };
  directory.major = has("PG_VERSION") ? ReadMajor(path) : 0;
  METAL_ASSIGN_OR_RETURN(const bool control,
                         base::Exists(base::JoinPath(path, "global/pg_control")));
  if (has(kIncompleteSentinel)) {
    METAL_ASSIGN_OR_RETURN(
        const std::string text,
        base::ReadFile(base::JoinPath(path, kIncompleteSentinel), 64 * base::kKiB));
    directory.kind = DataDirectoryKind::kIncomplete;
    directory.incomplete_task = FirstLine(text);
  } else if (has(kRewindSentinel)) {
    directory.kind = DataDirectoryKind::kIncomplete;
    directory.incomplete_task = kRewindTask;
  } else if (names->empty()) {
    directory.kind = DataDirectoryKind::kEmpty;
  } else if (directory.major > 0 && control) {
    directory.kind = DataDirectoryKind::kCluster;
  } else {
    directory.kind = DataDirectoryKind::kForeign;
  }
  directory.standby_signal = has("standby.signal");
  directory.recovery_signal = has("recovery.signal");
  directory.backup_label = has("backup_label");
  if (has("pg_wal")) directory.wal_path = RealPath(base::JoinPath(path, "pg_wal"));
  if (has("pg_tblspc")) METAL_RETURN_IF_ERROR(ReadTablespaces(path, directory.tablespaces));
  return absl::OkStatus();
}

template <typename... Args>
absl::Status Refuse(const DataDirectory& directory, const char* reason,
                    fmt::format_string<Args...> format, Args&&... args) {
  return base::WithReason(
      absl::Status(absl::StatusCode::kFailedPrecondition,
                   fmt::format("data directory {} {}", directory.path,
                               fmt::format(format, std::forward<Args>(args)...))),
      {reason, {{"path", directory.path}}});
}

absl::Status CheckOwnerAndMode(const DataDirectory& directory, uid_t uid) {
  if (directory.owner != uid) {
    return Refuse(directory, "DATA_DIRECTORY_OWNER",
                  "belongs to user id {}, the agent runs as {}. HINT: chown -R the directory, or "
                  "run the agent as "
                  "its owner ([agent] os_user)",
                  directory.owner, uid);
  }
  if (directory.mode != 0700 && directory.mode != 0750) {
    return Refuse(directory, "DATA_DIRECTORY_MODE",
                  "has mode {:04o}; PostgreSQL accepts 0700 and 0750 only. HINT: chmod 0700 {}",
                  directory.mode, directory.path);
  }
  return absl::OkStatus();
}

absl::Status CheckSpace(const DataDirectory& directory, base::ByteCount free,
                        const std::string& path) {
  if (free >= kLeastFree) return absl::OkStatus();
  return base::WithReason(base::Error(absl::StatusCode::kResourceExhausted,
                                      "disk of {} has {} free, at least {} are needed. HINT: free "
                                      "space on it (never inside pg_wal by hand)",
                                      path, free.ToString(), kLeastFree.ToString()),
                          {"NO_SPACE", {{"path", path}, {"data_directory", directory.path}}});
}

absl::Status CheckLinks(const DataDirectory& directory) {
  if (directory.wal_path.empty()) {
    return Refuse(directory, "WAL_DIRECTORY_MISSING",
                  "has no pg_wal, or its link points nowhere. HINT: mount the WAL disk");
  }
  for (const TablespaceLink& link : directory.tablespaces) {
    struct stat info;
    if (stat(link.location.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) continue;
    return Refuse(directory, "TABLESPACE_MISSING",
                  "has tablespace {} at {}, which is not there. HINT: mount its disk", link.oid,
                  link.location);
  }
  return absl::OkStatus();
}

absl::Status LockDescriptor(int fd, const std::string& path) {
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return base::ErrnoStatus(errno, "lock", path);
    return base::WithReason(
        base::Error(
            absl::StatusCode::kAborted,
            "{} is locked by another process. HINT: another metal-agent runs on it; see fuser {}",
            path, path),
        {"DATA_DIRECTORY_LOCKED", {{"path", path}}});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DataDirectory> InspectDataDirectory(const std::string& path) {
  DataDirectory directory;
  directory.path = path;
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) return base::ErrnoStatus(errno, "stat", path);
    directory.data_free = directory.wal_free = FreeSpace(base::DirectoryOf(path));
    return directory;
  }
  if (!S_ISDIR(info.st_mode)) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "data directory {} is not a directory. HINT: set [postgres] data_dir", path);
  }
  directory.owner = info.st_uid;
  directory.mode = info.st_mode & 07777;
  directory.real_path = RealPath(path);
  METAL_RETURN_IF_ERROR(ReadContents(directory));
  directory.data_free = FreeSpace(path);
  directory.wal_free =
      directory.wal_path.empty() ? directory.data_free : FreeSpace(directory.wal_path);
  return directory;
}

absl::Status CheckStartable(const DataDirectory& directory, const PostgresVersion& version,
                            uid_t uid) {
  switch (directory.kind) {
    case DataDirectoryKind::kMissing:
    case DataDirectoryKind::kEmpty:
      return Refuse(directory, "DATA_DIRECTORY_MISSING",
                    "{}. HINT: metalctl pg init, or restore a backup",
                    directory.kind == DataDirectoryKind::kEmpty ? "is empty" : "does not exist");
    case DataDirectoryKind::kIncomplete:
      if (directory.half_rewound()) {
        return Refuse(directory, "DATA_DIRECTORY_INCOMPLETE",
                      "is half rewound: a rewind did not finish. HINT: metalctl rewind again, or "
                      "make the node anew from another one or a backup");
      }
      return Refuse(directory, "DATA_DIRECTORY_INCOMPLETE",
                    "is half made: {} did not finish. HINT: run that operation again; it removes "
                    "what is left",
                    directory.incomplete_task);
    case DataDirectoryKind::kForeign:
    case DataDirectoryKind::kCluster:
      break;
  }
  METAL_RETURN_IF_ERROR(CheckOwnerAndMode(directory, uid));
  if (directory.kind == DataDirectoryKind::kForeign) {
    return Refuse(directory, "DATA_DIRECTORY_FOREIGN",
                  "holds files but no PG_VERSION with global/pg_control. HINT: set [postgres] "
                  "data_dir to a PostgreSQL "
                  "data directory");
  }
  if (directory.major != version.major()) {
    return Refuse(directory, "VERSION_MISMATCH",
                  "was made by PostgreSQL {}, the programs are {}. HINT: set [postgres] bin_dir to "
                  "version {}, or "
                  "run pg_upgrade",
                  directory.major, version.text, directory.major);
  }
  METAL_RETURN_IF_ERROR(CheckLinks(directory));
  METAL_RETURN_IF_ERROR(CheckSpace(directory, directory.data_free, directory.path));
  return CheckSpace(directory, directory.wal_free, directory.wal_path);
}

absl::Status CheckCreatable(const DataDirectory& directory, uid_t uid) {
  switch (directory.kind) {
    case DataDirectoryKind::kMissing: {
      const std::string parent = base::DirectoryOf(directory.path);
      // Parents that do not exist yet are made by MakeDirectories, which reports by itself.
      if (base::PathExists(parent) && access(parent.c_str(), W_OK | X_OK) != 0) {
        return Refuse(directory, "DATA_DIRECTORY_OWNER",
                      "cannot be made: user id {} may not write to {}. HINT: make it and chown it, "
                      "or chown {}",
                      uid, parent, parent);
      }
      break;
    }
    case DataDirectoryKind::kEmpty:
      if (directory.owner != uid) return CheckOwnerAndMode(directory, uid);
      break;
    case DataDirectoryKind::kIncomplete:
      if (directory.incomplete_task != "initdb") {
        return Refuse(directory, "DATA_DIRECTORY_INCOMPLETE",
                      "is half made by {}. HINT: run that operation again, or remove the directory",
                      directory.incomplete_task);
      }
      break;
    case DataDirectoryKind::kCluster:
      return base::WithReason(base::Error(absl::StatusCode::kAlreadyExists,
                                          "data directory {} already holds a PostgreSQL {} "
                                          "cluster. HINT: start it, or choose another "
                                          "data_dir",
                                          directory.path, directory.major),
                              {"DATA_DIRECTORY_NOT_EMPTY", {{"path", directory.path}}});
    case DataDirectoryKind::kForeign:
      METAL_RETURN_IF_ERROR(directory.owner == uid ? absl::OkStatus()
                                                   : CheckOwnerAndMode(directory, uid));
      return Refuse(directory, "DATA_DIRECTORY_NOT_EMPTY",
                    "is not empty and is no data directory. HINT: use an empty directory (below a "
                    "mount point, not "
                    "the one with lost+found)");
  }
  return CheckSpace(directory, directory.data_free, directory.path);
}

absl::Status WriteIncompleteSentinel(const std::string& data_dir, const std::string& task,
                                     const std::vector<std::string>& notes) {
  METAL_ASSIGN_OR_RETURN(const auto names, base::ListDirectory(data_dir));
  for (const std::string& name : names) {
    if (!IsBesideSentinel(name)) continue;
    METAL_RETURN_IF_ERROR(base::RemoveTree(base::JoinPath(data_dir, name)));
  }
  std::string text = task + "\n";
  for (const std::string& note : notes) text += note + "\n";
  return base::WriteFileDurably(base::JoinPath(data_dir, kIncompleteSentinel), text, 0600);
}

absl::Status RemoveIncompleteSentinel(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, kIncompleteSentinel);
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return base::ErrnoStatus(errno, "remove", path);
  return base::SyncDirectory(data_dir);
}

absl::Status WriteRewindSentinel(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, kRewindSentinel);
  if (mknod(path.c_str(), S_IFSOCK | 0600, 0) != 0 && errno != EEXIST) {
    return base::ErrnoStatus(errno, "make", path);
  }
  return base::SyncDirectory(data_dir);
}

absl::Status RemoveRewindSentinel(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, kRewindSentinel);
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return base::ErrnoStatus(errno, "remove", path);
  return base::SyncDirectory(data_dir);
}

absl::StatusOr<DataDirectoryLock> DataDirectoryLock::Acquire(const std::string& data_dir,
                                                             const std::string& state_dir) {
  auto held = std::make_shared<Held>();
  held->data_dir = data_dir;
  const std::string path = base::JoinPath(state_dir, "postgres.lock");
  METAL_ASSIGN_OR_RETURN(held->file, base::OpenFile(path, O_RDWR | O_CREAT, 0600));
  METAL_RETURN_IF_ERROR(LockDescriptor(held->file.get(), path));
  return DataDirectoryLock(std::move(held));
}

absl::Status DataDirectoryLock::LockDirectory() const {
  const std::string& path = held_->data_dir;
  base::MutexLock lock(held_->mutex);
  base::UniqueFd& directory = held_->directory;
  struct stat path_info, held_info;
  if (stat(path.c_str(), &path_info) != 0) {
    if (errno != ENOENT) return base::ErrnoStatus(errno, "stat", path);
    directory.Reset();
    return absl::OkStatus();
  }
  if (directory.valid() && fstat(directory.get(), &held_info) == 0 &&
      held_info.st_ino == path_info.st_ino && held_info.st_dev == path_info.st_dev) {
    return absl::OkStatus();
  }
  absl::StatusOr<base::UniqueFd> fd = base::OpenFile(path, O_RDONLY | O_DIRECTORY);
  if (absl::IsPermissionDenied(fd.status())) return absl::OkStatus();
  if (!fd.ok()) return fd.status();
  METAL_RETURN_IF_ERROR(LockDescriptor(fd->get(), path));
  directory = *std::move(fd);
  return absl::OkStatus();
}

}  // namespace metal::pg
