// VerifyBackup: proves that a backup can be restored. Reads every frame, checks each hash, CRC and
// file CRC and every byte of the WAL that it needs; on request rehearses: restores into a scratch
// directory, boots PostgreSQL to consistency, runs pg_amcheck. Threading: as RestoreBackup.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/context.h"

namespace metal::backup {

struct VerifyRequest {
  std::string backup;              // label, "latest", or "backups/<either>"
  uint64_t system_identifier = 0;  // 0: the one system that has this backup
  bool rehearse = false;
  std::string scratch_directory;  // parent of the rehearsal's directory; empty: config.state_dir
};

struct VerifyReport {
  std::string backup;
  uint64_t files = 0;
  uint64_t frames = 0;
  uint64_t bytes = 0;
  uint64_t stored_bytes = 0;
  uint64_t wal_segments = 0;
  absl::Duration elapsed;
  bool suspect = false;
  std::string rehearsal;  // empty: not asked for; else what was done, e.g. "consistent at
                          // 0/3000100, pg_amcheck clean"
};

// DATA_LOSS/REPOSITORY: a frame, file or the manifest is damaged (the message names the first, and
// how many). The same for its WAL. FAILED_PRECONDITION/WAL_MISSING: that is not complete. INTERNAL:
// the rehearsal failed.
absl::StatusOr<VerifyReport> VerifyBackup(const VerifyRequest& request,
                                          const OperationContext& context);

}  // namespace metal::backup
