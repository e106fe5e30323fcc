#include "agent/backup/restore_target.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/base/units.h"
#include "agent/pg/data_directory.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr std::string_view kLockName = "metal.incomplete.lock";
constexpr std::string_view kProbePrefix = ".metal-probe";  // of the disk monitor; holds nothing

absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& path) {
  auto names = base::ListDirectory(path);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  return names;
}

bool IsProbe(const std::string& name) { return name.starts_with(kProbePrefix); }

// Our sentinel, its lock, or what is left of writing it.
bool IsSentinel(const std::string& name) { return name.starts_with(pg::kIncompleteSentinel); }

absl::Status RemoveNames(const std::string& path, bool (*matches)(const std::string&)) {
  METAL_ASSIGN_OR_RETURN(const auto names, NamesIn(path));
  for (const std::string& name : names) {
    if (matches(name)) METAL_RETURN_IF_ERROR(base::RemoveTree(JoinPath(path, name)));
  }
  return absl::OkStatus();
}

absl::Status NotEmpty(const std::string& target, const std::string& what, const std::string& path,
                      const std::string& name) {
  return RestoreTargetError(
      target, fmt::format("cannot use {} {}: it is not empty, it holds {}. HINT: map it "
                          "elsewhere, or empty it yourself",
                          what, path, name));
}

absl::Status CheckIsDirectory(const std::string& target, const std::string& what,
                              const std::string& path) {
  if (path.empty() || path[0] != '/') {
    return RestoreTargetError(
        target, fmt::format("needs an absolute path for {}, not \"{}\". HINT: give the whole path",
                            what, path));
  }
  if (LeadsUp(path)) {
    return RestoreTargetError(
        target, fmt::format("needs a path without \"..\" for {}, not \"{}\". HINT: give the path "
                            "that it leads to",
                            what, path));
  }
  struct stat status {};
  if (stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return absl::OkStatus();
    return RestoreTargetError(
        target,
        fmt::format("cannot use {} {}: not a directory. HINT: give another path", what, path));
  }
  return errno == ENOENT ? absl::OkStatus() : base::ErrnoStatus(errno, "stat", path);
}

absl::Status MakeExactDirectory(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return base::ErrnoStatus(errno, "create directory", path);
  }
  if (chmod(path.c_str(), mode) != 0) return base::ErrnoStatus(errno, "chmod", path);
  return absl::OkStatus();
}

absl::Status MakeLink(const std::string& location, const std::string& path) {
  if (symlink(location.c_str(), path.c_str()) != 0) {
    return base::ErrnoStatus(errno, "create link", path);
  }
  return absl::OkStatus();
}

}  // namespace

std::map<uint32_t, std::string> RestoreTarget::OuterTablespaces() const {
  std::map<uint32_t, std::string> outer = options_.tablespaces;
  for (const uint32_t oid : options_.inside) outer.erase(oid);
  return outer;
}

absl::Status RestoreTarget::CheckApart() const {
  std::vector<RestorePlace> written = {{"the target", options_.directory}};
  for (const auto& [oid, location] : OuterTablespaces()) {
    written.push_back({fmt::format("tablespace {} at", oid), location});
  }
  written.push_back({"the WAL directory", options_.wal_directory});
  return CheckPlacesApart(options_.directory, written, options_.kept_out);
}

absl::Status RestoreTarget::CheckTablespace(uint32_t oid, const std::string& location,
                                            const std::optional<RestoreNotes>& notes) const {
  const std::string what = fmt::format("tablespace {} at", oid);
  const std::string version = JoinPath(location, options_.version_directory);
  METAL_ASSIGN_OR_RETURN(const auto names, NamesIn(location));
  for (const std::string& name : names) {
    if (IsProbe(name) || name.starts_with(kPlaceMarker)) continue;
    if (name == options_.version_directory) {
      METAL_ASSIGN_OR_RETURN(const std::string marker, ReadPlaceMarker(version));
      if (notes && !marker.empty() && marker == notes->id) continue;
    } else if (name.starts_with("PG_")) {
      continue;  // of another server version
    }
    return NotEmpty(options_.directory, what, location, name);
  }
  return absl::OkStatus();
}

absl::Status RestoreTarget::CheckWalDirectory(const std::optional<RestoreNotes>& notes) const {
  const std::string& path = options_.wal_directory;
  METAL_ASSIGN_OR_RETURN(const std::string marker, ReadPlaceMarker(path));
  if (notes && !marker.empty() && marker == notes->id) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const auto names, NamesIn(path));
  for (const std::string& name : names) {
    if (IsProbe(name) || (notes && name.starts_with(PlaceMarkerBefore(notes->id)))) continue;
    return NotEmpty(options_.directory, "WAL directory", path, name);
  }
  return absl::OkStatus();
}

absl::Status RestoreTarget::CheckDirectory() const {
  const std::string& directory = options_.directory;
  METAL_RETURN_IF_ERROR(CheckIsDirectory(directory, "the target", directory));
  METAL_ASSIGN_OR_RETURN(const bool in_use, base::Exists(JoinPath(directory, "postmaster.pid")));
  if (in_use) {
    return RestoreTargetError(directory,
                              "is in use: it holds a postmaster.pid. HINT: give another directory");
  }
  METAL_ASSIGN_OR_RETURN(const auto notes, ReadRestoreNotes(directory));
  if (notes) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const auto names, NamesIn(directory));
  for (const std::string& name : names) {
    if (IsProbe(name) || IsSentinel(name)) continue;
    return RestoreTargetError(directory,
                              fmt::format("is not empty, it holds {}. HINT: give an empty or "
                                          "absent directory, or empty it yourself",
                                          name));
  }
  return absl::OkStatus();
}

absl::Status RestoreTarget::Check() const {
  METAL_RETURN_IF_ERROR(CheckDirectory());
  METAL_ASSIGN_OR_RETURN(const auto notes, ReadRestoreNotes(options_.directory));
  return CheckPlaces(notes);
}

absl::Status RestoreTarget::CheckReplacing(const RestoreNotes& notes) const {
  METAL_RETURN_IF_ERROR(CheckIsDirectory(options_.directory, "the target", options_.directory));
  return CheckPlaces(notes);
}

absl::Status RestoreTarget::CheckPlaces(const std::optional<RestoreNotes>& notes) const {
  const std::string& directory = options_.directory;
  for (const auto& [oid, location] : options_.tablespaces) {
    METAL_RETURN_IF_ERROR(
        CheckIsDirectory(directory, fmt::format("tablespace {} at", oid), location));
  }
  if (!options_.wal_directory.empty()) {
    METAL_RETURN_IF_ERROR(CheckIsDirectory(directory, "the WAL directory", options_.wal_directory));
  }
  METAL_RETURN_IF_ERROR(CheckApart());
  for (const auto& [oid, location] : OuterTablespaces()) {
    METAL_RETURN_IF_ERROR(CheckTablespace(oid, location, notes));
  }
  return options_.wal_directory.empty() ? absl::OkStatus() : CheckWalDirectory(notes);
}

absl::Status RestoreTarget::CheckSpace(const std::map<uint32_t, uint64_t>& bytes,
                                       const std::map<uint64_t, uint64_t>& freed,
                                       base::ByteCount reserve) const {
  struct Need {
    uint64_t bytes = 0;
    std::string path;
  };
  std::map<dev_t, Need> needs;
  for (const auto& [oid, amount] : bytes) {
    const auto location = options_.tablespaces.find(oid);
    METAL_ASSIGN_OR_RETURN(
        const std::string path,
        ExistingAncestor(location == options_.tablespaces.end() ? options_.directory
                                                                : location->second));
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return base::ErrnoStatus(errno, "stat", path);
    Need& need = needs[status.st_dev];
    need.bytes += amount + (need.path.empty() ? reserve.value : 0);
    need.path = path;
  }
  for (const auto& [device, need] : needs) {
    struct statvfs space {};
    if (statvfs(need.path.c_str(), &space) != 0)
      return base::ErrnoStatus(errno, "statvfs", need.path);
    const auto old = freed.find(device);
    const uint64_t available =
        uint64_t{space.f_bavail} * space.f_frsize + (old == freed.end() ? 0 : old->second);
    if (available >= need.bytes) continue;
    return base::WithReason(
        absl::ResourceExhaustedError(fmt::format(
            "restore needs {} on the filesystem of {}, which has {} free. HINT: free space or "
            "restore elsewhere",
            base::ByteCount{need.bytes}.ToString(), need.path,
            base::ByteCount{available}.ToString())),
        {"NO_SPACE", {{"path", need.path}}});
  }
  return absl::OkStatus();
}

absl::Status RestoreTarget::RemoveLeftovers() {
  METAL_ASSIGN_OR_RETURN(const auto notes, ReadRestoreNotes(options_.directory));
  if (!notes) return absl::OkStatus();
  base::LogInfo("restore.removing_leftovers target={}", options_.directory);
  for (const std::string& path : notes->version_directories) {
    METAL_RETURN_IF_ERROR(RemoveMarkedDirectory(path, notes->id));
  }
  if (!notes->wal_directory.empty()) {
    METAL_RETURN_IF_ERROR(EmptyMarkedDirectory(notes->wal_directory, notes->id));
  }
  return RemoveNames(options_.directory, [](const std::string& name) { return !IsSentinel(name); });
}

absl::Status RestoreTarget::MarkOuterPlaces(const RestoreNotes& notes) {
  for (const auto& [oid, location] : options_.tablespaces) {
    METAL_RETURN_IF_ERROR(base::MakeDirectories(location, 0700));
    METAL_RETURN_IF_ERROR(RemoveNames(location, IsProbe));
  }
  for (const std::string& directory : notes.version_directories) {
    METAL_RETURN_IF_ERROR(MakeMarkedDirectory(directory, notes.id));
  }
  if (notes.wal_directory.empty()) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(base::MakeDirectories(notes.wal_directory, 0700));
  METAL_RETURN_IF_ERROR(RemoveNames(notes.wal_directory, IsProbe));
  return MarkDirectory(notes.wal_directory, notes.id);
}

absl::Status RestoreTarget::HoldFilesystems() {
  std::vector<std::string> places = {options_.directory};
  for (const auto& [oid, location] : options_.tablespaces) places.push_back(location);
  if (!options_.wal_directory.empty()) places.push_back(options_.wal_directory);
  std::set<dev_t> devices;
  for (const std::string& place : places) {
    METAL_ASSIGN_OR_RETURN(base::UniqueFd fd, base::OpenFile(place, O_RDONLY | O_DIRECTORY));
    struct stat status {};
    if (fstat(fd.get(), &status) != 0) return base::ErrnoStatus(errno, "stat", place);
    if (devices.insert(status.st_dev).second) filesystems_.push_back(std::move(fd));
  }
  return absl::OkStatus();
}

absl::Status RestoreTarget::Lock() {
  const std::string path = JoinPath(options_.directory, kLockName);
  METAL_ASSIGN_OR_RETURN(lock_, base::OpenFile(path, O_RDWR | O_CREAT, 0600));
  struct stat held {
  }, named{};
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) {
    if (fstat(lock_.get(), &held) != 0) return base::ErrnoStatus(errno, "stat", path);
    // Another restore may have ended meanwhile, and taken the file with it.
    if (stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
        held.st_dev == named.st_dev) {
      return absl::OkStatus();
    }
  }
  return RestoreTargetError(options_.directory,
                            "is in use: another restore writes it. HINT: wait for it");
}

absl::Status RestoreTarget::Begin() {
  const std::string& directory = options_.directory;
  METAL_RETURN_IF_ERROR(base::MakeDirectories(directory, 0700));
  METAL_RETURN_IF_ERROR(Lock());
  METAL_RETURN_IF_ERROR(base::FaultPoint("restore.locked"));
  METAL_RETURN_IF_ERROR(Check());  // again, now that nobody else restores here
  METAL_RETURN_IF_ERROR(RemoveLeftovers());
  METAL_RETURN_IF_ERROR(RemoveNames(directory, IsProbe));
  METAL_ASSIGN_OR_RETURN(notes_.id, NewRestoreId());
  notes_.backup = options_.backup;
  notes_.wal_directory = options_.wal_directory;
  for (const auto& [oid, location] : OuterTablespaces()) {
    notes_.version_directories.push_back(JoinPath(location, options_.version_directory));
  }
  METAL_RETURN_IF_ERROR(WriteRestoreNotes(directory, notes_));
  if (chmod(directory.c_str(), 0700) != 0) return base::ErrnoStatus(errno, "chmod", directory);
  METAL_RETURN_IF_ERROR(base::FaultPoint("restore.noted"));
  METAL_RETURN_IF_ERROR(MarkOuterPlaces(notes_));
  return HoldFilesystems();
}

absl::Status RestoreTarget::Make(const FileListRecord& record) {
  if (record.kind == RecordKind::kTablespace) {
    const auto location = options_.tablespaces.find(record.tablespace);
    if (location == options_.tablespaces.end()) {
      return base::Error(absl::StatusCode::kDataLoss,
                         "file list: tablespace {} is not in the manifest", record.tablespace);
    }
    return MakeLink(location->second,
                    JoinPath(options_.directory, fmt::format("pg_tblspc/{}", record.tablespace)));
  }
  const std::string path = JoinPath(options_.directory, record.file.path);
  if (record.file.path == "pg_wal" && !options_.wal_directory.empty()) {
    return MakeLink(options_.wal_directory, path);
  }
  return MakeExactDirectory(path, record.file.mode);
}

absl::Status RestoreTarget::Sync() {
  for (const base::UniqueFd& fd : filesystems_) {
    if (syncfs(fd.get()) != 0) return base::ErrnoStatus(errno, "syncfs", options_.directory);
  }
  return absl::OkStatus();
}

absl::Status RestoreTarget::Finish() {
  absl::Status removed = pg::RemoveIncompleteSentinel(options_.directory);
  METAL_ASSIGN_OR_RETURN(const bool half,
                         base::Exists(JoinPath(options_.directory, pg::kIncompleteSentinel)));
  if (half) return removed;
  // Last of the two: whoever sees the sentinel sees the lock, too.
  removed.Update(base::RemoveTree(JoinPath(options_.directory, kLockName)));
  // Without a sentinel a mark permits nothing: one that an end right here leaves does no harm to
  // the data. The marks go also when it was only the sync that failed.
  for (const std::string& directory : notes_.version_directories) {
    removed.Update(UnmarkPlace(directory));
  }
  if (!notes_.wal_directory.empty()) removed.Update(UnmarkPlace(notes_.wal_directory));
  return removed;
}

}  // namespace metal::backup
