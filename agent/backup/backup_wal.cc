#include "agent/backup/backup_wal.h"

#include <algorithm>
#include <string>

#include "agent/backup/stored_backup.h"
#include "agent/backup/wal_archive.h"
#include "agent/backup/wal_history.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

// Long enough for a primary's archiver that is not behind.
constexpr absl::Duration kSwitchHintAfter = absl::Seconds(10);
constexpr std::string_view kSwitchHint =
    "The backup is from a standby, which cannot end a segment: run SELECT pg_switch_wal() on the "
    "primary";

absl::Status Refused(std::string text) {
  return base::WithReason(absl::FailedPreconditionError(std::move(text)), {"WAL_MISSING", {}});
}

void TellOfSwitch(const BackupHeader& header, const absl::Status& waited,
                  const OperationContext& context) {
  EmitEvent(context, observe::Severity::kWarning, "backup.waiting_for_switch",
            "backups/" + header.label,
            fmt::format("{}. {}", std::string(waited.message()), kSwitchHint));
}

}  // namespace

absl::Status CheckArchiving(const SourceArchiving& archiving, const std::string& own_command) {
  // What a standby replays is archived by its primary, unless it archives on its own account too.
  if (archiving.standby && archiving.mode != "always") return absl::OkStatus();
  if (archiving.mode == "off") {
    return Refused(
        "archive_mode is off, so the WAL that a backup needs would never reach the repository. "
        "HINT: set archive_mode to on and restart PostgreSQL");
  }
  if (!archiving.library.empty()) {
    return Refused(fmt::format(
        "archive_library {} archives the WAL, so what a backup needs would never reach the "
        "repository. HINT: empty archive_library and set archive_command to {}",
        archiving.library, own_command));
  }
  const size_t helper = archiving.command.find("metal-wal");
  if (archiving.command == own_command) return absl::OkStatus();
  if (helper == std::string::npos || archiving.command.find(" push", helper) == std::string::npos) {
    return Refused(fmt::format(
        "archive_command is \"{}\", so the WAL that a backup needs would never reach the "
        "repository. HINT: set it to {}",
        archiving.command, own_command));
  }
  return absl::OkStatus();
}

absl::Status WaitForBackupWal(const BackupHeader& header, absl::Duration patience,
                              const OperationContext& context) {
  if (context.wal_archive == nullptr) return absl::OkStatus();
  context.progress.BeginPhase("waiting for WAL");
  METAL_RETURN_IF_ERROR(ProvideTimelineHistory(*context.wal_archive, header.system_identifier,
                                               header.timeline, context.config.pg_data_dir));
  const WalRange range = WalRangeOf(header);
  if (!header.from_standby) {
    return context.wal_archive->WaitForSegments(range, patience, context.progress);
  }
  // The end may lie in an unfinished segment of a quiet primary: whoever waits can do something.
  absl::Status status = context.wal_archive->WaitForSegments(
      range, std::min(kSwitchHintAfter, patience), context.progress);
  if (!absl::IsDeadlineExceeded(status)) return status;
  TellOfSwitch(header, status, context);
  context.progress.BeginPhase("waiting for the primary to switch WAL");
  status = context.wal_archive->WaitForSegments(range, patience, context.progress);
  if (!absl::IsDeadlineExceeded(status)) return status;
  absl::Status hinted(status.code(),
                      fmt::format("{}. {}", std::string(status.message()), kSwitchHint));
  if (const auto reason = base::GetReason(status)) hinted = base::WithReason(hinted, *reason);
  return hinted;
}

}  // namespace metal::backup
