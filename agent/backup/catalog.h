// The catalogue: which complete backups a repository holds. Reads only the small manifest of each
// backup. Threading: thread-safe; blocks on the repository's disk.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/manifest.h"
#include "agent/base/units.h"
#include "agent/store/repository.h"

namespace metal::backup {

enum class BackupState {
  kComplete,  // every page that could be checked verified
  kSuspect,   // some page's checksum did not match: see corrupt_pages
};
std::string_view BackupStateName(BackupState state);  // "complete", "suspect"

struct BackupInfo {
  std::string label;
  BackupState state = BackupState::kComplete;
  BackupHeader header;  // everything the manifest says
  // Raw bytes over stored bytes; 0 when nothing is stored.
  double ratio() const;
  // Raw bytes per second of the copy.
  double bytes_per_second() const;
};

class Catalog {
 public:
  explicit Catalog(store::Repository repository) : repository_(std::move(repository)) {}

  // Complete backups of a system, newest first. A backup whose manifest is damaged is left out and
  // named in `damaged` when that is given.
  absl::StatusOr<std::vector<BackupInfo>> List(uint64_t system_identifier,
                                               std::vector<std::string>* damaged = nullptr) const;
  // `label` may be "latest" and may carry the prefix "backups/". NOT_FOUND names what there is;
  // DATA_LOSS: damaged manifest.
  absl::StatusOr<BackupInfo> Get(uint64_t system_identifier, std::string_view label) const;
  // The same, in whichever system has it. INVALID_ARGUMENT when several systems do ("latest" with
  // several systems too).
  absl::StatusOr<BackupInfo> Find(std::string_view label) const;

  // Removes what no manifest names: packs, file lists, and directories of runs that died. Does
  // nothing to packs when a manifest cannot be read (it may name them). REQUIRES: the caller holds
  // Repository::LockForBackup. Returns bytes freed.
  absl::StatusOr<uint64_t> RemoveGarbage(uint64_t system_identifier) const;

  const store::Repository& repository() const { return repository_; }

 private:
  store::Repository repository_;
};

}  // namespace metal::backup
