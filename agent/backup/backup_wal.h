// The WAL that makes a copy consistent: a backup is complete only when the repository holds it.
// Threading: blocks on the data disk and the repository's.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/backup/context.h"
#include "agent/backup/manifest.h"
#include "agent/backup/source.h"

namespace metal::backup {

// Before the copy: FAILED_PRECONDITION (reason WAL_MISSING) when the server does not archive its
// WAL with metal-wal, so that the wait after the copy would be in vain. `own_command`: as this
// agent would set archive_command.
absl::Status CheckArchiving(const SourceArchiving& archiving, const std::string& own_command);

// Waits until the archive holds the WAL [start, stop) of the backup and its timeline's history. OK
// without an archive in the context. DEADLINE_EXCEEDED (reason WAL_MISSING) after `patience`;
// CANCELLED.
absl::Status WaitForBackupWal(const BackupHeader& header, absl::Duration patience,
                              const OperationContext& context);

}  // namespace metal::backup
