#include "agent/backup/catalog.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

using base::JoinPath;

absl::Status NotFound(const std::string& root, std::string text) {
  return base::WithReason(absl::NotFoundError(std::move(text)),
                          {"REPOSITORY", {{"repository", root}}});
}

// Names in a directory; an absent directory is empty.
absl::StatusOr<std::vector<std::string>> ListOrEmpty(const std::string& path) {
  auto names = base::ListDirectory(path);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  return names;
}

absl::StatusOr<BackupInfo> Load(const std::string& directory, const std::string& label) {
  const std::string path = JoinPath(directory, kManifestName);
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kManifestSizeMax));
  auto header = ParseManifest(text);
  if (!header.ok()) return base::Annotate(header.status(), path);
  if (header->label != label) {
    return base::Error(absl::StatusCode::kDataLoss, "{}: manifest of another backup, {}", path,
                       header->label);
  }
  BackupInfo info;
  info.label = label;
  info.state = header->checksums == ChecksumVerdict::kSuspect ? BackupState::kSuspect
                                                              : BackupState::kComplete;
  info.header = *std::move(header);
  return info;
}

// nullopt: no manifest, an unfinished backup. What cannot be read, or looked for, is there and
// damaged.
std::optional<BackupInfo> LoadIfPublished(const std::string& directory, const std::string& label,
                                          uint64_t system_identifier) {
  const auto published = base::Exists(JoinPath(directory, kManifestName));
  if (published.ok() && !*published) return std::nullopt;
  auto info = published.ok() ? Load(directory, label) : published.status();
  if (info.ok()) return *std::move(info);
  BackupInfo damaged;
  damaged.label = damaged.header.label = label;
  damaged.state = BackupState::kDamaged;
  damaged.damage = std::string(info.status().message());
  damaged.header.system_identifier = system_identifier;
  std::string error;
  if (!absl::ParseTime("%E4Y%m%dT%H%M%SZ", label.substr(0, label.find('-')),
                       &damaged.header.start_time, &error)) {
    damaged.header.start_time = absl::InfinitePast();
  }
  damaged.header.stop_time = damaged.header.start_time;
  return damaged;
}

std::string_view PlainLabel(std::string_view label) {
  constexpr std::string_view kPrefix = "backups/";
  if (label.substr(0, kPrefix.size()) == kPrefix) label.remove_prefix(kPrefix.size());
  return label;
}

// Removes `path` and answers how many bytes its files had.
absl::StatusOr<uint64_t> RemoveAndCount(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return 0;
    return base::ErrnoStatus(errno, "look for", path);
  }
  uint64_t bytes = 0;
  if (S_ISDIR(status.st_mode)) {
    METAL_ASSIGN_OR_RETURN(const auto names, ListOrEmpty(path));
    for (const std::string& name : names) {
      METAL_ASSIGN_OR_RETURN(const uint64_t inner, RemoveAndCount(JoinPath(path, name)));
      bytes += inner;
    }
  } else {
    bytes = static_cast<uint64_t>(status.st_blocks) * 512;
  }
  METAL_RETURN_IF_ERROR(base::RemoveTree(path));
  return bytes;
}

}  // namespace

std::string_view BackupStateName(BackupState state) {
  switch (state) {
    case BackupState::kSuspect:
      return "suspect";
    case BackupState::kDamaged:
      return "damaged";
    case BackupState::kComplete:
      break;
  }
  return "complete";
}

double BackupInfo::ratio() const {
  if (header.stored_bytes == 0) return 0;
  return static_cast<double>(header.bytes) / static_cast<double>(header.stored_bytes);
}

double BackupInfo::bytes_per_second() const {
  const double seconds = absl::ToDoubleSeconds(header.copy_time);
  return seconds > 0 ? static_cast<double>(header.bytes) / seconds : 0;
}

absl::StatusOr<std::vector<BackupInfo>> Catalog::List(uint64_t system_identifier) const {
  const std::string directory = repository_.BackupsDirectory(system_identifier);
  METAL_ASSIGN_OR_RETURN(const auto labels, ListOrEmpty(directory));
  std::vector<BackupInfo> backups;
  for (const std::string& label : labels) {
    auto info = LoadIfPublished(JoinPath(directory, label), label, system_identifier);
    if (info) backups.push_back(*std::move(info));
  }
  // The latest moment at which it may have begun; a label says it to the second.
  const auto begin = [](const BackupInfo& info) {
    if (info.state != BackupState::kDamaged) return info.header.start_time;
    return info.header.start_time == absl::InfinitePast()
               ? absl::InfiniteFuture()
               : info.header.start_time + absl::Seconds(1);
  };
  std::sort(backups.begin(), backups.end(), [&](const BackupInfo& a, const BackupInfo& b) {
    return begin(a) != begin(b) ? begin(a) > begin(b) : a.label > b.label;
  });
  return backups;
}

absl::StatusOr<BackupInfo> Catalog::Get(uint64_t system_identifier, std::string_view label) const {
  label = PlainLabel(label);
  if (label == "latest") {
    METAL_ASSIGN_OR_RETURN(std::vector<BackupInfo> all, List(system_identifier));
    if (all.empty()) {
      return NotFound(
          repository_.root(),
          fmt::format("no backup of system {} in repository {}. HINT: metalctl backup create",
                      system_identifier, repository_.root()));
    }
    if (all.front().state == BackupState::kDamaged) {
      return base::WithReason(
          base::Error(absl::StatusCode::kDataLoss,
                      "the latest backup may be {}, which is damaged: {}. HINT: name the backup "
                      "that you want; metalctl backup list",
                      all.front().label, all.front().damage),
          {"REPOSITORY", {{"repository", repository_.root()}, {"backup", all.front().label}}});
    }
    return all.front();
  }
  if (!store::IsValidLabel(label)) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "backup label \"{}\" is not valid. HINT: metalctl backup list", label);
  }
  const std::string directory = repository_.BackupDirectory(system_identifier, label);
  METAL_ASSIGN_OR_RETURN(const bool published, base::Exists(JoinPath(directory, kManifestName)));
  if (!published) {
    return NotFound(repository_.root(),
                    fmt::format("backup {} of system {} is not in repository {}. "
                                "HINT: metalctl backup list",
                                label, system_identifier, repository_.root()));
  }
  return Load(directory, std::string(label));
}

absl::StatusOr<BackupInfo> Catalog::Find(std::string_view label) const {
  METAL_ASSIGN_OR_RETURN(const std::vector<uint64_t> systems, repository_.ListSystems());
  std::vector<BackupInfo> found;
  for (const uint64_t system : systems) {
    auto info = Get(system, label);
    if (info.ok()) {
      found.push_back(*std::move(info));
    } else if (!absl::IsNotFound(info.status())) {
      return info.status();
    }
  }
  if (found.empty()) {
    return NotFound(repository_.root(),
                    fmt::format("backup {} is not in repository {}. HINT: metalctl backup list",
                                label, repository_.root()));
  }
  if (found.size() > 1) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "backup {} exists for {} systems in repository {}, {} and {} among them. "
                       "HINT: give the system identifier",
                       label, found.size(), repository_.root(), found[0].header.system_identifier,
                       found[1].header.system_identifier);
  }
  return found.front();
}

absl::StatusOr<uint64_t> Catalog::RemoveGarbage(uint64_t system_identifier) const {
  uint64_t freed = 0;
  const std::string backups = repository_.BackupsDirectory(system_identifier);
  const std::string packs = repository_.PacksDirectory(system_identifier);
  std::set<std::string> named;  // packs that some manifest names
  METAL_ASSIGN_OR_RETURN(const auto labels, ListOrEmpty(backups));
  for (const std::string& label : labels) {
    const std::string directory = JoinPath(backups, label);
    const auto info = LoadIfPublished(directory, label, system_identifier);
    if (!info) {
      METAL_ASSIGN_OR_RETURN(const uint64_t bytes, RemoveAndCount(directory));
      freed += bytes;
      continue;
    }
    if (info->state == BackupState::kDamaged) {
      base::LogWarning("repository.garbage_kept system={} reason=\"{}\"", system_identifier,
                       info->damage);
      return freed;
    }
    for (const PackReference& pack : info->header.packs) named.insert(pack.path);
  }
  METAL_ASSIGN_OR_RETURN(const auto pack_labels, ListOrEmpty(packs));
  for (const std::string& label : pack_labels) {
    const std::string directory = JoinPath(packs, label);
    METAL_ASSIGN_OR_RETURN(const auto files, ListOrEmpty(directory));
    size_t kept = 0;
    for (const std::string& file : files) {
      if (named.count(JoinPath(label, file)) != 0) {
        ++kept;
        continue;
      }
      METAL_ASSIGN_OR_RETURN(const uint64_t bytes, RemoveAndCount(JoinPath(directory, file)));
      freed += bytes;
    }
    if (kept == 0) METAL_RETURN_IF_ERROR(base::RemoveTree(directory));
  }
  return freed;
}

}  // namespace metal::backup
