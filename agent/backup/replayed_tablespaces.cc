#include "agent/backup/replayed_tablespaces.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "agent/backup/restore_places.h"
#include "agent/backup/stored_backup.h"
#include "agent/backup/wal_records.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/pg/control_file.h"
#include "agent/pg/data_directory.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr uint8_t kTablespaceManager = 5;  // RM_TBLSPC_ID
constexpr uint8_t kInfoMask = 0xF0, kCreate = 0x00;
// CREATE TABLESPACE makes the link before it writes WAL, and the time in pg_control may be another
// host's.
constexpr absl::Duration kClockDoubt = absl::Minutes(10);

absl::Status TakeCreation(const WalRecord& record, TablespaceList& created) {
  if ((record.info & kInfoMask) != kCreate) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const std::span<const std::byte> data, MainDataOf(record));
  uint32_t oid = 0;
  if (data.size() <= sizeof oid || data.back() != std::byte{0}) {
    return base::Error(absl::StatusCode::kDataLoss, "WAL record at {} creates no tablespace",
                       record.start.ToString());
  }
  std::memcpy(&oid, data.data(), sizeof oid);
  const char* path = reinterpret_cast<const char*>(data.data()) + sizeof oid;
  if (*path != 0) created[oid] = path;  // an in-place one lies inside the data directory
  return absl::OkStatus();
}

// False when no tablespace was created or dropped after a checkpoint of this time began: the
// directory of links is older. True when that is not certain.
absl::StatusOr<bool> TablespacesMayHaveChanged(const std::string& data_directory,
                                               absl::Time checkpoint) {
  const std::string links = JoinPath(data_directory, "pg_tblspc");
  struct stat status {};
  if (stat(links.c_str(), &status) != 0) {
    if (errno == ENOENT) return true;
    return base::ErrnoStatus(errno, "stat", links);
  }
  return absl::TimeFromTimespec(status.st_ctim) > checkpoint - kClockDoubt;
}

}  // namespace

absl::StatusOr<TablespaceList> FindCreatedTablespaces(WalArchive& archive, const WalRange& range,
                                                      observe::Progress& progress) {
  TablespaceList created;
  WalRecords::Options options;
  options.from = range.from;
  options.to = range.to;
  options.segment_size = range.segment_size;
  options.resource_manager = kTablespaceManager;
  WalRecords records(options,
                     [&](const WalRecord& record) { return TakeCreation(record, created); });
  const WalSink sink = [&](std::span<const std::byte> piece) {
    METAL_RETURN_IF_ERROR(progress.CheckCancelled());
    progress.AddDone(piece.size());
    return records.Add(piece);
  };
  WalRange segments = range;
  segments.require_history = false;
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, FilesOf(segments));
  progress.SetTotal(names.size() * range.segment_size);
  for (const std::string& name : names) {
    METAL_RETURN_IF_ERROR(archive.Fetch(range.system_identifier, name, sink).status());
  }
  METAL_RETURN_IF_ERROR(records.Finish());
  return created;
}

absl::Status NoteCreatedTablespaces(BackupHeader& header, absl::Time old_checkpoint,
                                    const OperationContext& context) {
  METAL_ASSIGN_OR_RETURN(const bool possible,
                         TablespacesMayHaveChanged(context.config.pg_data_dir, old_checkpoint));
  if (!possible) {
    header.created_tablespaces.emplace();
    return absl::OkStatus();
  }
  if (context.wal_archive == nullptr) return absl::OkStatus();
  context.progress.BeginPhase("looking for tablespaces in WAL");
  auto created = FindCreatedTablespaces(*context.wal_archive, WalRangeOf(header), context.progress);
  METAL_RETURN_IF_ERROR(context.progress.CheckCancelled());
  const std::string subject = "backups/" + header.label;
  if (!created.ok()) {
    EmitEvent(context, observe::Severity::kWarning, "backup.wal_not_followed", subject,
              std::string(created.status().message()));
    return absl::OkStatus();
  }
  for (const auto& [oid, location] : *created) {
    EmitEvent(context, observe::Severity::kWarning, "backup.creates_tablespace", subject,
              fmt::format("tablespace {} was created at {} during the backup: WAL replay creates "
                          "it there again, so this backup is not rehearsed, and not restored where "
                          "that place is taken",
                          oid, location));
  }
  header.created_tablespaces = *std::move(created);
  return absl::OkStatus();
}

absl::StatusOr<TablespaceList> CreatedTablespaces(const BackupHeader& header,
                                                  const OperationContext& context) {
  if (header.created_tablespaces) return *header.created_tablespaces;
  if (context.wal_archive == nullptr) return TablespaceList();
  context.progress.BeginPhase("looking for tablespaces in WAL");
  return FindCreatedTablespaces(*context.wal_archive, WalRangeOf(header), context.progress);
}

absl::Status CheckPlacesOfReplay(const std::string& target, const TablespaceList& created,
                                 const std::string& version_directory) {
  for (const auto& [oid, location] : created) {
    const std::string place = JoinPath(location, version_directory);
    METAL_ASSIGN_OR_RETURN(const bool taken, base::Exists(place));
    if (!taken) continue;
    return RestoreTargetError(
        target, fmt::format("cannot be replayed here: tablespace {} was created during the backup, "
                            "so WAL replay creates it at {}, where {} is already. HINT: use a "
                            "backup that began later, restore on another host, or move {} away "
                            "when no server needs it",
                            oid, location, version_directory, place));
  }
  return absl::OkStatus();
}

absl::Status CheckTablespacesOfLive(const std::string& target, const BackupHeader& header,
                                    const std::string& live_directory) {
  if (live_directory.empty()) return absl::OkStatus();
  const auto control = pg::ReadControlFile(live_directory);
  if (!control.ok() || control->system_identifier != header.system_identifier) {
    return absl::OkStatus();
  }
  const auto live = pg::InspectDataDirectory(live_directory);
  if (!live.ok()) return absl::OkStatus();
  for (const pg::TablespaceLink& link : live->tablespaces) {
    if (link.in_place || header.tablespaces.contains(link.oid)) continue;
    return RestoreTargetError(
        target,
        fmt::format("cannot be replayed here: tablespace {} at {} of the cluster in {} is not in "
                    "the backup, so WAL replay would create it there, over that cluster's files. "
                    "HINT: recover to the end of the backup alone (immediate), use a backup that "
                    "has it, or restore on another host",
                    link.oid, link.location, live_directory));
  }
  return absl::OkStatus();
}

absl::Status CheckRehearsalStaysInside(const BackupHeader& header,
                                       const OperationContext& context) {
  METAL_ASSIGN_OR_RETURN(const TablespaceList created, CreatedTablespaces(header, context));
  if (created.empty()) return absl::OkStatus();
  const auto& [oid, location] = *created.begin();
  return base::WithReason(
      absl::FailedPreconditionError(fmt::format(
          "a rehearsal of backup {} would write outside of its scratch directory: "
          "tablespace {} was created during the backup, so WAL replay creates it at {}. "
          "HINT: rehearse a backup that began later; this one can be restored on "
          "another host",
          header.label, oid, location)),
      {"RESTORE_TARGET", {{"target_directory", location}}});
}

}  // namespace metal::backup
