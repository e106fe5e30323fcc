// CreateBackup: a full backup of a running PostgreSQL into the repository.
// Order: lock repository → remove garbage of dead runs → backup start → copy → backup stop →
// pg_control → label files → wait for the WAL → publish. Until the last rename nothing names the
// backup: a crash anywhere leaves only garbage. Threading: blocks the calling thread, which becomes
// the ring thread; codec threads run beside it. Memory is bounded by config.backup_memory whatever
// the database size.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/catalog.h"
#include "agent/backup/context.h"
#include "agent/backup/source.h"
#include "agent/stream/codec.h"

namespace metal::backup {

struct BackupRequest {
  std::string label;                       // empty: "<UTC time>-F", for example 20261122T021500Z-F
  std::optional<stream::CodecKind> codec;  // unset: config.backup_codec
  std::optional<int>
      level;  // unset: config.backup_level for the configured codec, else the codec's 1
  bool spread_checkpoint = false;  // wait for a spread checkpoint, up to checkpoint_timeout
  uint64_t rate_limit = 0;         // bytes of the data directory read in a second; 0: none
  bool ignore_free_space = false;  // begin although it may not fit (backup_room.h)
  // For the backup's WAL to become durable in the archive, counted from the newest archived WAL.
  absl::Duration wal_patience = absl::Minutes(10);
  std::map<std::string, std::string> annotations;  // free text kept with the backup
};

// Opens the SQL session of the backup. Called once, after the repository is locked. See
// postgres_source.h.
using SourceFactory = std::function<absl::StatusOr<std::unique_ptr<BackupSource>>()>;

// Ok also for a suspect backup: look at info.state. Errors: ABORTED/REPOSITORY (another writer),
// RESOURCE_EXHAUSTED/NO_SPACE, DEADLINE_EXCEEDED/WAL_MISSING, DATA_LOSS (the source or the
// repository's disk), CANCELLED. After an error the files of this run are removed; what could not
// be removed goes with the next run.
absl::StatusOr<BackupInfo> CreateBackup(const BackupRequest& request,
                                        const SourceFactory& open_source,
                                        const OperationContext& context);

}  // namespace metal::backup
