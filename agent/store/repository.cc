#include "agent/store/repository.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::store {
namespace {

constexpr std::string_view kMarker = "metal-repository";
constexpr size_t kIdLength = 32;

absl::Status RepositoryError(absl::StatusCode code, const std::string& root,
                             const std::string& text) {
  return base::WithReason(absl::Status(code, text), {"REPOSITORY", {{"repository", root}}});
}

absl::StatusOr<std::string> NewId() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
    return base::ErrnoStatus(errno, "read random bytes for", "repository id");
  }
  std::string id;
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

// Value of "key\tvalue" in the marker file; empty when absent.
std::string MarkerValue(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    if (line.size() > key.size() && line.substr(0, key.size()) == key && line[key.size()] == '\t') {
      return std::string(line.substr(key.size() + 1));
    }
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return "";
}

template <typename Number>
bool ParseNumber(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// Makes the marker file, unless another process was faster.
absl::Status WriteMarker(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const std::string id, NewId());
  const std::string marker = base::JoinPath(path, kMarker);
  const std::string temporary = fmt::format("{}.{}", marker, id);
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(
      temporary, fmt::format("format\t{}\nrepository-id\t{}\n", kRepositoryFormat, id), 0640));
  const absl::Status renamed = base::RenameNoReplace(temporary, marker);
  if (!renamed.ok()) {
    METAL_RETURN_IF_ERROR(base::RemoveTree(temporary));
    if (!absl::IsAlreadyExists(renamed)) return renamed;
  }
  return base::SyncDirectory(path);
}

// The id in the state directory's note; empty when there is none.
absl::StatusOr<std::string> NotedId(const std::string& note) {
  auto text = base::ReadFile(note, 4096);
  if (absl::IsNotFound(text.status())) return std::string();
  if (!text.ok()) return base::Annotate(text.status(), "which repository is this agent's");
  if (text->size() != kIdLength + 1 || text->back() != '\n') {
    return base::Error(absl::StatusCode::kDataLoss,
                       "{} is damaged. HINT: write the repository-id of the right repository's {} "
                       "into it",
                       note, kMarker);
  }
  text->pop_back();
  return text;
}

}  // namespace

absl::StatusOr<Repository> Repository::Open(const std::string& path) {
  const std::string marker = base::JoinPath(path, kMarker);
  auto text = base::ReadFile(marker, 4096);
  if (!text.ok()) {
    if (absl::IsNotFound(text.status())) {
      return RepositoryError(absl::StatusCode::kNotFound, path,
                             fmt::format("open repository {}: no file {} there. HINT: the first "
                                         "backup creates the repository; check repository.path",
                                         path, kMarker));
    }
    return base::Annotate(text.status(), "open repository");
  }
  int format = 0;
  const std::string id = MarkerValue(*text, "repository-id");
  if (!ParseNumber(MarkerValue(*text, "format"), format) || id.size() != kIdLength) {
    return RepositoryError(absl::StatusCode::kDataLoss, path,
                           fmt::format("open repository {}: {} is damaged. HINT: restore that file "
                                       "from another copy of the repository",
                                       path, marker));
  }
  if (format != kRepositoryFormat) {
    return RepositoryError(absl::StatusCode::kFailedPrecondition, path,
                           fmt::format("open repository {}: format {} is not supported, this agent "
                                       "reads format {}. HINT: upgrade the agent",
                                       path, format, kRepositoryFormat));
  }
  return Repository(path, id);
}

absl::StatusOr<Repository> Repository::OpenOrCreate(const std::string& path) {
  if (path.empty()) {
    return RepositoryError(absl::StatusCode::kFailedPrecondition, path,
                           "no backup repository is configured. HINT: set repository.path");
  }
  METAL_ASSIGN_OR_RETURN(const bool present, base::Exists(base::JoinPath(path, kMarker)));
  if (present) return Open(path);
  METAL_RETURN_IF_ERROR(base::MakeDirectories(path));
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, base::ListDirectory(path));
  const bool foreign = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    // An interrupted creation leaves at most a temporary marker; a fresh filesystem has lost+found;
    // disk probes may have come first.
    return name != "lost+found" && name.find(kMarker) == std::string::npos &&
           name.rfind(".metal-probe", 0) != 0;
  });
  if (foreign) {
    return RepositoryError(
        absl::StatusCode::kFailedPrecondition, path,
        fmt::format("create repository {}: the directory is not empty and holds no repository. "
                    "HINT: give an empty or absent directory as repository.path",
                    path));
  }
  METAL_RETURN_IF_ERROR(WriteMarker(path));
  return Open(path);
}

absl::StatusOr<Repository> Repository::OpenNoted(const std::string& path,
                                                 const std::string& state_dir) {
  if (state_dir.empty()) return Open(path);
  const std::string note = base::JoinPath(state_dir, kKnownIdName);
  METAL_ASSIGN_OR_RETURN(const std::string id, NotedId(note));
  auto repository = Open(path);
  if (id.empty()) return repository;
  if (absl::IsNotFound(repository.status())) {
    return RepositoryError(absl::StatusCode::kUnavailable, path,
                           fmt::format("the repository {} is not at {}. HINT: is its filesystem "
                                       "mounted? To begin a new repository remove {}",
                                       id, path, note));
  }
  if (repository.ok() && repository->id() != id) {
    return RepositoryError(
        absl::StatusCode::kFailedPrecondition, path,
        fmt::format("at {} is the repository {}, not {}, which this agent uses. HINT: mount the "
                    "right filesystem or mend repository.path; to change over to this repository "
                    "remove {}",
                    path, repository->id(), id, note));
  }
  return repository;
}

absl::StatusOr<Repository> Repository::OpenKnown(const std::string& path,
                                                 const std::string& state_dir) {
  if (state_dir.empty()) return OpenOrCreate(path);
  const std::string note = base::JoinPath(state_dir, kKnownIdName);
  METAL_ASSIGN_OR_RETURN(const std::string id, NotedId(note));
  if (!id.empty()) return OpenNoted(path, state_dir);
  METAL_ASSIGN_OR_RETURN(Repository repository, OpenOrCreate(path));
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(note, repository.id() + "\n", 0640));
  return repository;
}

std::string Repository::SystemDirectory(uint64_t system_identifier) const {
  return base::JoinPath(root_, fmt::format("{}", system_identifier));
}
std::string Repository::BackupsDirectory(uint64_t system_identifier) const {
  return base::JoinPath(SystemDirectory(system_identifier), "backups");
}
std::string Repository::BackupDirectory(uint64_t system_identifier, std::string_view label) const {
  return base::JoinPath(BackupsDirectory(system_identifier), label);
}
std::string Repository::PacksDirectory(uint64_t system_identifier) const {
  return base::JoinPath(SystemDirectory(system_identifier), "packs");
}
std::string Repository::PackDirectory(uint64_t system_identifier, std::string_view label) const {
  return base::JoinPath(PacksDirectory(system_identifier), label);
}

absl::StatusOr<std::vector<uint64_t>> Repository::ListSystems() const {
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, base::ListDirectory(root_));
  std::vector<uint64_t> systems;
  for (const std::string& name : names) {
    uint64_t system = 0;
    if (ParseNumber(name, system)) systems.push_back(system);
  }
  std::sort(systems.begin(), systems.end());
  return systems;
}

absl::StatusOr<base::UniqueFd> Repository::LockForBackup(uint64_t system_identifier) const {
  METAL_RETURN_IF_ERROR(base::MakeDirectories(BackupsDirectory(system_identifier)));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(PacksDirectory(system_identifier)));
  const std::string path = base::JoinPath(SystemDirectory(system_identifier), "backup.lock");
  METAL_ASSIGN_OR_RETURN(base::UniqueFd fd, base::OpenFile(path, O_RDWR | O_CREAT, 0600));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return base::ErrnoStatus(errno, "lock", path);
    return RepositoryError(
        absl::StatusCode::kAborted, root_,
        fmt::format("lock repository {}: another process writes a backup of system {}. HINT: wait "
                    "for it; fuser {} names the process",
                    root_, system_identifier, path));
  }
  return fd;
}

bool IsValidLabel(std::string_view label) {
  if (label.empty() || label.size() > 64 || label[0] == '.' || label[0] == '-') return false;
  return std::all_of(label.begin(), label.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

}  // namespace metal::store
