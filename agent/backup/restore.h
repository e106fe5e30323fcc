// RestoreBackup: makes a data directory from a backup, ready to be started.
// Order: check the target → check space → sentinel metal.incomplete → marks in the places outside
// of it (restore_notes.h) → directories and files, parallel inside each file → configuration →
// backup_manifest → one syncfs per filesystem → global/pg_control → sentinel removed → marks
// removed. Until the last step the directory has no pg_control, so no PostgreSQL starts on it, and
// the sentinel says what it is. Threading: blocks the calling thread, which becomes the ring
// thread; codec threads run beside it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/context.h"
#include "agent/base/units.h"

namespace metal::backup {

enum class RecoveryTarget {
  kLatest,     // replay all archived WAL of the latest timeline, then open for writes
  kImmediate,  // stop at the end of the backup, then open for writes
  kStandby,    // stay a standby
};

struct RestoreRequest {
  std::string backup;              // label, "latest", or "backups/<either>"
  uint64_t system_identifier = 0;  // 0: the one system that has this backup
  std::string target_directory;    // absent, empty, or left over from an earlier restore of ours
  std::map<uint32_t, std::string>
      tablespace_mapping;     // OID → new location; unmapped ones go where they were
  std::string wal_directory;  // pg_wal becomes a link to it; empty: inside the target
  RecoveryTarget recovery_target = RecoveryTarget::kLatest;
  std::string restore_command;  // empty: metal-wal fetch through config.wal_socket
  std::map<std::string, std::string>
      settings;  // further settings of the copy, e.g. port; written to postgresql.auto.conf
  bool validate_only = false;                      // check everything, change nothing
  base::ByteCount space_reserve{64 * base::kMiB};  // must stay free: for the copy's first start
};

struct RestoreReport {
  std::string backup;
  std::string target_directory;
  uint64_t system_identifier = 0;
  uint64_t files = 0;
  uint64_t bytes = 0;         // raw bytes of files
  uint64_t stored_bytes = 0;  // read from packs
  absl::Duration elapsed;
  std::string io_engine;
  bool suspect = false;  // the backup holds pages that did not verify
  double bytes_per_second() const;
};

// FAILED_PRECONDITION/RESTORE_TARGET: not empty, in use, places that meet each other, the
// repository or this node's cluster, or a tablespace that WAL replay would create over files that
// are there (replayed_tablespaces.h). RESOURCE_EXHAUSTED/NO_SPACE before
// anything is written when the space cannot suffice; in a target with an earlier restore's
// leftovers after they are removed (validate_only then does not look at the space).
// DATA_LOSS/REPOSITORY names the damaged frame and file. CANCELLED. After an error the target keeps
// its sentinel; the same call again, or removing the directory, cleans up.
absl::StatusOr<RestoreReport> RestoreBackup(const RestoreRequest& request,
                                            const OperationContext& context);

}  // namespace metal::backup
