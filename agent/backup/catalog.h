// The catalogue: which backups a repository holds. Reads only the small manifest of each
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
  kDamaged,   // its manifest is damaged or cannot be read: nothing else is known of it
};
std::string_view BackupStateName(BackupState state);  // "complete", "suspect", "damaged"

struct BackupInfo {
  std::string label;
  BackupState state = BackupState::kComplete;
  BackupHeader header;  // everything the manifest says; kDamaged: label, system, and the start time
                        // that the label says (else InfinitePast)
  std::string damage;   // kDamaged: why
  // Raw bytes over stored bytes; 0 when nothing is stored.
  double ratio() const;
  // Raw bytes per second of the copy.
  double bytes_per_second() const;
};

class Catalog {
 public:
  explicit Catalog(store::Repository repository) : repository_(std::move(repository)) {}

  // Backups of a system that were published, newest first. A damaged one stands where its label
  // says when it began, or at the beginning when the label does not say.
  absl::StatusOr<std::vector<BackupInfo>> List(uint64_t system_identifier) const;
  // `label` may be "latest" and may carry the prefix "backups/". NOT_FOUND names what there is;
  // DATA_LOSS: its manifest is damaged, or one that may be the latest is.
  absl::StatusOr<BackupInfo> Get(uint64_t system_identifier, std::string_view label) const;
  // The same, in whichever system has it. INVALID_ARGUMENT when several systems do ("latest" with
  // several systems too).
  absl::StatusOr<BackupInfo> Find(std::string_view label) const;

  // Removes what no manifest names: packs, file lists, and directories of runs that died. Does
  // nothing more once a manifest cannot be read (it may name them) or looked for. REQUIRES: the
  // caller holds Repository::LockForBackup. Returns bytes freed.
  absl::StatusOr<uint64_t> RemoveGarbage(uint64_t system_identifier) const;

  const store::Repository& repository() const { return repository_; }

 private:
  store::Repository repository_;
};

}  // namespace metal::backup
