#include "agent/backup/restore_target.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "agent/backup/copy_rules.h"
#include "agent/backup/text_fields.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/base/units.h"
#include "agent/pg/data_directory.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr std::string_view kTask = "restore";
constexpr std::string_view kLockName = "metal.incomplete.lock";
constexpr uint64_t kSpaceReserve = 64 << 20;  // for what the server writes at its first start

absl::Status TargetError(const std::string& path, std::string_view why) {
  return base::WithReason(
      absl::FailedPreconditionError(fmt::format("restore target {} {}", path, why)),
      {"RESTORE_TARGET", {{"target_directory", path}}});
}

// What the sentinel of an earlier restore says that it may have written outside of the target.
struct Notes {
  bool present = false;
  std::vector<std::string> version_directories;  // <location>/PG_…
  std::string wal_directory;
};

absl::StatusOr<Notes> ReadNotes(const std::string& directory) {
  Notes notes;
  auto text = base::ReadFile(JoinPath(directory, pg::kIncompleteSentinel), 1 << 20);
  if (absl::IsNotFound(text.status())) return notes;
  if (!text.ok()) return text.status();
  std::string_view rest = *text;
  bool first = true;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (first) notes.present = line == kTask;
    first = false;
    const size_t tab = line.find('\t');
    if (tab == std::string_view::npos) continue;
    const auto value = UnescapeField(line.substr(tab + 1));
    if (!value || value->empty() || (*value)[0] != '/') continue;
    if (line.substr(0, tab) == "tablespace") notes.version_directories.push_back(*value);
    if (line.substr(0, tab) == "wal") notes.wal_directory = *value;
  }
  return notes;
}

// Names in a directory that count: not our lock, sentinel or what is left of writing it.
absl::StatusOr<std::vector<std::string>> Contents(const std::string& path) {
  auto names = base::ListDirectory(path);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  if (!names.ok()) return names.status();
  names->erase(std::remove_if(names->begin(), names->end(),
                              [](const std::string& name) {
                                return name.find(pg::kIncompleteSentinel) != std::string::npos;
                              }),
               names->end());
  return names;
}

// The path itself or its nearest parent that exists.
std::string ExistingAncestor(std::string path) {
  struct stat status {};
  while (path.size() > 1 && stat(path.c_str(), &status) != 0) path = base::DirectoryOf(path);
  return path;
}

absl::Status RemoveContents(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const auto names, Contents(path));
  for (const std::string& name : names)
    METAL_RETURN_IF_ERROR(base::RemoveTree(JoinPath(path, name)));
  return absl::OkStatus();
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

std::vector<std::string> RestoreTarget::OuterPlaces() const {
  std::vector<std::string> places;
  for (const auto& [oid, location] : options_.tablespaces) places.push_back(location);
  if (!options_.wal_directory.empty()) places.push_back(options_.wal_directory);
  return places;
}

// `ours`: an earlier restore that died notes the version directory (or the WAL directory) as its
// own.
absl::Status RestoreTarget::CheckPlace(const std::string& path, const std::string& what,
                                       bool ours) const {
  if (path.empty() || path[0] != '/') {
    return TargetError(options_.directory,
                       fmt::format("needs an absolute path for {}, not \"{}\"", what, path));
  }
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
    return TargetError(options_.directory,
                       fmt::format("cannot use {} {}: not a directory", what, path));
  }
  METAL_ASSIGN_OR_RETURN(const auto names, Contents(path));
  for (const std::string& name : names) {
    if (ours && (what == "WAL directory" || name == options_.version_directory)) continue;
    // A tablespace may hold directories of other server versions.
    if (what != "WAL directory" && name.substr(0, 3) == "PG_" &&
        name != options_.version_directory) {
      continue;
    }
    return TargetError(options_.directory,
                       fmt::format("cannot use {} {}: it is not empty, it holds {}. HINT: map it "
                                   "elsewhere, or empty it yourself",
                                   what, path, name));
  }
  return absl::OkStatus();
}

absl::Status RestoreTarget::Check() const {
  const std::string& directory = options_.directory;
  if (directory.empty() || directory[0] != '/') {
    return TargetError(directory, "is not an absolute path. HINT: give the whole path");
  }
  struct stat status {};
  if (stat(directory.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
    return TargetError(directory, "is not a directory. HINT: give another path");
  }
  if (base::PathExists(JoinPath(directory, "postmaster.pid"))) {
    return TargetError(directory,
                       "is in use: it holds a postmaster.pid. HINT: give another directory");
  }
  METAL_ASSIGN_OR_RETURN(const Notes notes, ReadNotes(directory));
  if (!notes.present) {
    METAL_ASSIGN_OR_RETURN(const auto names, Contents(directory));
    if (!names.empty()) {
      return TargetError(directory, fmt::format("is not empty, it holds {}. HINT: give an empty or "
                                                "absent directory, or empty it yourself",
                                                names.front()));
    }
  }
  for (const auto& [oid, location] : options_.tablespaces) {
    const std::string version = JoinPath(location, options_.version_directory);
    const auto& noted = notes.version_directories;
    METAL_RETURN_IF_ERROR(
        CheckPlace(location, fmt::format("tablespace {} at", oid),
                   std::find(noted.begin(), noted.end(), version) != noted.end()));
  }
  if (options_.wal_directory.empty()) return absl::OkStatus();
  return CheckPlace(options_.wal_directory, "WAL directory",
                    notes.wal_directory == options_.wal_directory);
}

absl::Status RestoreTarget::CheckSpace(const std::map<uint32_t, uint64_t>& bytes) const {
  struct Need {
    uint64_t bytes = kSpaceReserve;
    std::string path;
  };
  std::map<dev_t, Need> needs;
  for (const auto& [oid, amount] : bytes) {
    const auto location = options_.tablespaces.find(oid);
    const std::string path = ExistingAncestor(
        location == options_.tablespaces.end() ? options_.directory : location->second);
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return base::ErrnoStatus(errno, "stat", path);
    Need& need = needs[status.st_dev];
    need.bytes += amount;
    need.path = path;
  }
  for (const auto& [device, need] : needs) {
    struct statvfs space {};
    if (statvfs(need.path.c_str(), &space) != 0)
      return base::ErrnoStatus(errno, "statvfs", need.path);
    const uint64_t available = uint64_t{space.f_bavail} * space.f_frsize;
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
  METAL_ASSIGN_OR_RETURN(const Notes notes, ReadNotes(options_.directory));
  if (!notes.present) return absl::OkStatus();
  base::LogInfo("restore.removing_leftovers target={}", options_.directory);
  for (const std::string& path : notes.version_directories) {
    METAL_RETURN_IF_ERROR(base::RemoveTree(path));
  }
  if (!notes.wal_directory.empty()) METAL_RETURN_IF_ERROR(RemoveContents(notes.wal_directory));
  return RemoveContents(options_.directory);
}

absl::Status RestoreTarget::Begin() {
  const std::string& directory = options_.directory;
  METAL_RETURN_IF_ERROR(base::MakeDirectories(directory, 0700));
  const std::string lock = JoinPath(directory, kLockName);
  METAL_ASSIGN_OR_RETURN(lock_, base::OpenFile(lock, O_RDWR | O_CREAT, 0600));
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return TargetError(directory, "is in use: another restore writes it. HINT: wait for it");
  }
  METAL_RETURN_IF_ERROR(Check());  // again, now that nobody else restores here
  METAL_RETURN_IF_ERROR(RemoveLeftovers());
  std::vector<std::string> notes = {"backup\t" + EscapeField(options_.backup)};
  for (const auto& [oid, location] : options_.tablespaces) {
    notes.push_back("tablespace\t" + EscapeField(JoinPath(location, options_.version_directory)));
  }
  if (!options_.wal_directory.empty())
    notes.push_back("wal\t" + EscapeField(options_.wal_directory));
  METAL_RETURN_IF_ERROR(pg::WriteIncompleteSentinel(directory, std::string(kTask), notes));
  if (chmod(directory.c_str(), 0700) != 0) return base::ErrnoStatus(errno, "chmod", directory);
  std::vector<std::string> places = OuterPlaces();
  places.push_back(directory);
  std::set<dev_t> devices;
  for (const std::string& place : places) {
    METAL_RETURN_IF_ERROR(base::MakeDirectories(place, 0700));
    METAL_ASSIGN_OR_RETURN(base::UniqueFd fd, base::OpenFile(place, O_RDONLY | O_DIRECTORY));
    struct stat status {};
    if (fstat(fd.get(), &status) != 0) return base::ErrnoStatus(errno, "stat", place);
    if (devices.insert(status.st_dev).second) filesystems_.push_back(std::move(fd));
  }
  return absl::OkStatus();
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
  METAL_RETURN_IF_ERROR(base::RemoveTree(JoinPath(options_.directory, kLockName)));
  return pg::RemoveIncompleteSentinel(options_.directory);
}

std::string RewriteTablespaceMap(const std::string& text,
                                 const std::map<uint32_t, std::string>& locations) {
  std::string out;
  size_t start = 0;
  while (start < text.size()) {
    // A backslash escapes the next byte, also a newline.
    size_t end = start;
    while (end < text.size() && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
    end = std::min(end, text.size());
    const std::string line = text.substr(start, end - start);
    const size_t space = line.find(' ');
    const auto oid = ParseOid(std::string_view(line).substr(0, space));
    const auto location = oid ? locations.find(*oid) : locations.end();
    if (location == locations.end()) {
      out += line;
    } else {
      out += line.substr(0, space) + " ";
      for (const char c : location->second) {
        if (c == '\n' || c == '\r' || c == '\\') out += '\\';
        out += c;
      }
    }
    if (end < text.size()) out += '\n';
    start = end + 1;
  }
  return out;
}

}  // namespace metal::backup
