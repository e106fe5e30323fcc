#include "agent/pg/rewind_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/data_directory.h"

namespace metal::pg {
namespace {

// Files at the top of a data directory that are the cluster's state. All others are the node's own:
// configuration, certificates, keys.
constexpr std::string_view kStateFiles[] = {
    "PG_VERSION",      "backup_label",     "backup_label.old",  "tablespace_map",
    "backup_manifest", "current_logfiles", "postmaster.pid",    "postmaster.opts",
    "standby.signal",  "recovery.signal",  "tablespace_map.old"};
constexpr off_t kLongestConfig = 1 << 20;  // bytes; what is longer is a log, a dump, a core

std::string ConfigDir(const std::string& keep_dir) { return base::JoinPath(keep_dir, "config"); }
std::string WalDir(const std::string& keep_dir) { return base::JoinPath(keep_dir, "wal"); }
std::string ControlIn(const std::string& dir) { return base::JoinPath(dir, "pg_control"); }
std::string DataWalDir(const std::string& data_dir) { return base::JoinPath(data_dir, "pg_wal"); }

// Copies a file of any size over `to` and syncs it; the name becomes durable with its directory.
absl::Status CopyFile(const std::string& from, const std::string& to) {
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd source, base::OpenFile(from, O_RDONLY));
  struct stat info;
  if (fstat(source.get(), &info) != 0) return base::ErrnoStatus(errno, "stat", from);
  const std::string work = to + ".metal-tmp";
  METAL_ASSIGN_OR_RETURN(base::UniqueFd target,
                         base::OpenFile(work, O_WRONLY | O_CREAT | O_TRUNC, info.st_mode & 0777));
  std::vector<char> buffer(1 << 20);
  while (true) {
    const ssize_t got = read(source.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read", from);
    if (got == 0) break;
    METAL_RETURN_IF_ERROR(base::WriteAll(
        target.get(), std::string_view(buffer.data(), static_cast<size_t>(got)), work));
  }
  if (fsync(target.get()) != 0) return base::ErrnoStatus(errno, "sync", work);
  METAL_RETURN_IF_ERROR(base::Annotate(target.Close(), work));
  if (std::rename(work.c_str(), to.c_str()) != 0) return base::ErrnoStatus(errno, "rename", work);
  return absl::OkStatus();
}

absl::Status CopyAll(const std::vector<std::string>& names, const std::string& from,
                     const std::string& to) {
  for (const std::string& name : names) {
    METAL_RETURN_IF_ERROR(CopyFile(base::JoinPath(from, name), base::JoinPath(to, name)));
  }
  return base::SyncDirectory(to);
}

absl::StatusOr<std::vector<std::string>> OwnFiles(const std::string& data_dir) {
  METAL_ASSIGN_OR_RETURN(std::vector<std::string> names, base::ListDirectory(data_dir));
  std::vector<std::string> own;
  for (std::string& name : names) {
    struct stat info;
    const std::string path = base::JoinPath(data_dir, name);
    if (lstat(path.c_str(), &info) != 0) return base::ErrnoStatus(errno, "stat", path);
    const bool state = std::ranges::find(kStateFiles, name) != std::end(kStateFiles);
    if (S_ISREG(info.st_mode) && !state && info.st_size <= kLongestConfig) {
      own.push_back(std::move(name));
    }
  }
  return own;
}

// Removes a file; the caller syncs the directory.
absl::Status Remove(const std::string& path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return base::ErrnoStatus(errno, "remove", path);
}

}  // namespace

absl::StatusOr<KeptWal> FindRewindWal(const std::string& data_dir, const WalStretch& stretch,
                                      uint64_t wal_segment_size) {
  const std::string directory = DataWalDir(data_dir);
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, base::ListDirectory(directory));
  const base::Lsn first{stretch.from.value / wal_segment_size * wal_segment_size};
  KeptWal kept;
  for (const std::string& name : names) {
    const auto segment = base::ParseWalFileName(name, wal_segment_size);
    // What lies behind the end was recycled for WAL to come.
    const bool wanted = segment ? segment->start >= first && segment->start <= stretch.to
                                : name.ends_with(".history");
    if (!wanted) continue;
    struct stat info;
    const std::string path = base::JoinPath(directory, name);
    if (stat(path.c_str(), &info) != 0) return base::ErrnoStatus(errno, "stat", path);
    kept.files.push_back(name);
    kept.bytes.value += static_cast<uint64_t>(info.st_size);
  }
  return kept;
}

absl::Status KeepForRewind(const std::string& data_dir, const KeptWal& wal,
                           const std::string& keep_dir) {
  METAL_RETURN_IF_ERROR(base::RemoveTree(keep_dir));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(ConfigDir(keep_dir), 0700));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(WalDir(keep_dir), 0700));
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> own, OwnFiles(data_dir));
  METAL_RETURN_IF_ERROR(CopyAll(own, data_dir, ConfigDir(keep_dir)));
  METAL_RETURN_IF_ERROR(CopyAll(wal.files, DataWalDir(data_dir), WalDir(keep_dir)));
  METAL_RETURN_IF_ERROR(
      CopyFile(ControlIn(base::JoinPath(data_dir, "global")), ControlIn(keep_dir)));
  return base::SyncDirectory(keep_dir);
}

absl::Status PutBackWal(const std::string& keep_dir, const std::string& data_dir) {
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> files,
                         base::ListDirectory(WalDir(keep_dir)));
  METAL_RETURN_IF_ERROR(CopyAll(files, WalDir(keep_dir), DataWalDir(data_dir)));
  for (const char* name : {"backup_label", "tablespace_map"}) {
    METAL_RETURN_IF_ERROR(Remove(base::JoinPath(data_dir, name)));
  }
  METAL_RETURN_IF_ERROR(base::SyncDirectory(data_dir));
  // Last: until here pg_control says that nothing was put back.
  const std::string global = base::JoinPath(data_dir, "global");
  METAL_RETURN_IF_ERROR(CopyFile(ControlIn(keep_dir), ControlIn(global)));
  return base::SyncDirectory(global);
}

absl::StatusOr<int> PutBackSharedWal(const std::string& keep_dir, const std::string& data_dir,
                                     const std::vector<TimelineEnd>& history,
                                     uint64_t wal_segment_size) {
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> files,
                         base::ListDirectory(WalDir(keep_dir)));
  std::vector<std::string> missing;
  for (const std::string& name : files) {
    const auto segment = base::ParseWalFileName(name, wal_segment_size);
    if (!segment) continue;
    const bool shared = std::ranges::any_of(history, [&](const TimelineEnd& ended) {
      return ended.timeline == segment->timeline &&
             segment->start.value + wal_segment_size <= ended.end.value;
    });
    if (!shared) continue;
    METAL_ASSIGN_OR_RETURN(const bool there,
                           base::Exists(base::JoinPath(DataWalDir(data_dir), name)));
    if (!there) missing.push_back(name);
  }
  METAL_RETURN_IF_ERROR(CopyAll(missing, WalDir(keep_dir), DataWalDir(data_dir)));
  return static_cast<int>(missing.size());
}

absl::Status PutBackConfiguration(const std::string& keep_dir, const std::string& data_dir) {
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> files,
                         base::ListDirectory(ConfigDir(keep_dir)));
  return CopyAll(files, ConfigDir(keep_dir), data_dir);
}

absl::Status StoreSegment(const std::string& data_dir, const std::string& name,
                          const std::function<absl::Status(const SegmentSink&)>& fill) {
  const std::string path = base::JoinPath(DataWalDir(data_dir), name);
  // A start of the server removes files of this name.
  const std::string work = base::JoinPath(DataWalDir(data_dir), "xlogtemp.metal");
  METAL_ASSIGN_OR_RETURN(base::UniqueFd file,
                         base::OpenFile(work, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  const absl::Status filled = fill([&](std::span<const std::byte> bytes) {
    return base::WriteAll(
        file.get(), std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
        work);
  });
  if (!filled.ok()) {
    unlink(work.c_str());
    return filled;
  }
  if (fsync(file.get()) != 0) return base::ErrnoStatus(errno, "sync", work);
  METAL_RETURN_IF_ERROR(base::Annotate(file.Close(), work));
  if (std::rename(work.c_str(), path.c_str()) != 0) return base::ErrnoStatus(errno, "rename", work);
  return base::SyncDirectory(DataWalDir(data_dir));
}

absl::Status WriteTimelineHistory(const std::string& data_dir, base::TimelineId timeline,
                                  const std::string& text) {
  if (text.empty()) return absl::OkStatus();
  const std::string path =
      base::JoinPath(DataWalDir(data_dir), fmt::format("{:08X}.history", timeline));
  METAL_ASSIGN_OR_RETURN(const bool there, base::Exists(path));
  return there ? absl::OkStatus() : base::WriteFileDurably(path, text, 0600);
}

}  // namespace metal::pg
