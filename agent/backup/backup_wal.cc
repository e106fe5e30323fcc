#include "agent/backup/backup_wal.h"

#include <string>

#include "agent/backup/stored_backup.h"
#include "agent/backup/wal_archive.h"
#include "agent/backup/wal_history.h"
#include "agent/base/status.h"

namespace metal::backup {

absl::Status WaitForBackupWal(const BackupHeader& header, absl::Duration timeout,
                              const OperationContext& context) {
  if (context.wal_archive == nullptr) return absl::OkStatus();
  context.progress.BeginPhase("waiting for WAL");
  METAL_RETURN_IF_ERROR(ProvideTimelineHistory(*context.wal_archive, header.system_identifier,
                                               header.timeline, context.config.pg_data_dir));
  const absl::Status status =
      context.wal_archive->WaitForSegments(WalRangeOf(header), timeout, context.progress);
  if (absl::IsDeadlineExceeded(status) && header.from_standby) {
    // No segment switch happens on a standby: the end may lie in an unfinished segment.
    absl::Status hinted(
        status.code(),
        fmt::format("{} The backup is from a standby: run pg_switch_wal() on the primary",
                    std::string(status.message())));
    if (const auto reason = base::GetReason(status)) hinted = base::WithReason(hinted, *reason);
    return hinted;
  }
  return status;
}

}  // namespace metal::backup
