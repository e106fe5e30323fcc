// The backup repository in a POSIX directory: where everything lives, who may write, and the
// format's version. Layout (agent/docs/repository-format.md):
//   <root>/metal-repository                           format version and repository id, text
//   <root>/<system identifier>/backups/<label>/       manifest (text), files.zst
//   <root>/<system identifier>/packs/<label>/<n>.pack frames
//   <root>/<system identifier>/wal/                   the WAL archive
// Threading: immutable after opening; all methods are thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"

namespace metal::store {

inline constexpr int kRepositoryFormat = 1;
// In the agent's state directory: the id of the repository that it uses, and a newline.
inline constexpr std::string_view kKnownIdName = "repository.id";

class Repository {
 public:
  // Opens a repository; creates it when `path` is absent or an empty directory. Of several that
  // create it at once one wins, and all open that one. FAILED_PRECONDITION (reason REPOSITORY) when
  // the directory holds something else or a newer format.
  static absl::StatusOr<Repository> OpenOrCreate(const std::string& path);
  // As OpenOrCreate the first time, which it notes durably in <state_dir>/repository.id. From then
  // on it opens the noted repository and no other: an empty mount point shall not become a second
  // repository. UNAVAILABLE (reason REPOSITORY) when none is there, FAILED_PRECONDITION (reason
  // REPOSITORY) when it is another.
  static absl::StatusOr<Repository> OpenKnown(const std::string& path,
                                              const std::string& state_dir);
  // The same, but neither creates nor notes anything: without a note any repository will do.
  // Both: an empty `state_dir` notes nothing.
  static absl::StatusOr<Repository> OpenNoted(const std::string& path,
                                              const std::string& state_dir);
  // NOT_FOUND (reason REPOSITORY) when there is none.
  static absl::StatusOr<Repository> Open(const std::string& path);

  const std::string& root() const { return root_; }
  const std::string& id() const { return id_; }  // 32 hex digits, made at creation

  std::string SystemDirectory(uint64_t system_identifier) const;
  std::string BackupsDirectory(uint64_t system_identifier) const;
  std::string BackupDirectory(uint64_t system_identifier, std::string_view label) const;
  std::string PacksDirectory(uint64_t system_identifier) const;
  std::string PackDirectory(uint64_t system_identifier, std::string_view label) const;

  // System identifiers that have a directory here, ascending.
  absl::StatusOr<std::vector<uint64_t>> ListSystems() const;

  // The one writer of backups of a system: an flock that the kernel drops when the process dies.
  // Creates the system's directories. ABORTED (reason REPOSITORY) when another process holds it.
  // Hold the descriptor while writing.
  absl::StatusOr<base::UniqueFd> LockForBackup(uint64_t system_identifier) const;

 private:
  Repository(std::string root, std::string id) : root_(std::move(root)), id_(std::move(id)) {}

  std::string root_;
  std::string id_;
};

// True for 1 to 64 of [A-Za-z0-9._-], not starting with a dot or dash.
bool IsValidLabel(std::string_view label);

}  // namespace metal::store
