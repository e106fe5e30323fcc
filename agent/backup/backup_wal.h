// The WAL that makes a copy consistent: a backup is complete only when the repository holds it.
// Threading: blocks on the data disk and the repository's.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/backup/context.h"
#include "agent/backup/manifest.h"

namespace metal::backup {

// Waits until the archive holds the WAL [start, stop) of the backup and its timeline's history. OK
// without an archive in the context. DEADLINE_EXCEEDED (reason WAL_MISSING) after `timeout`;
// CANCELLED.
absl::Status WaitForBackupWal(const BackupHeader& header, absl::Duration timeout,
                              const OperationContext& context);

}  // namespace metal::backup
