// Tablespaces that WAL replay creates. A replayed CREATE TABLESPACE makes the link in pg_tblspc
// anew and puts the tablespace where the source had it, whatever the copy's own map says; on a host
// where the source still runs that place holds the live server's files. Source: PostgreSQL 13–18,
// src/backend/commands/tablespace.c (tblspc_redo, create_tablespace_directories). Threading: block
// on the data disk and the repository's.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/context.h"
#include "agent/backup/manifest.h"
#include "agent/backup/tablespace_list.h"
#include "agent/backup/wal_archive.h"

namespace metal::backup {

// Reads the range's WAL for tablespaces that it creates outside of the data directory, also those
// that it drops again. Sets done and total of progress's current phase. Errors as
// WalArchive::Fetch; DATA_LOSS when the records cannot be followed; CANCELLED.
absl::StatusOr<TablespaceList> FindCreatedTablespaces(WalArchive& archive, const WalRange& range,
                                                      observe::Progress& progress);

// At the end of a backup, when its WAL is archived: sets header.created_tablespaces and tells of
// them with events. `old_checkpoint`: when a checkpoint began that lies before the WAL of the
// backup; nothing needs to be read when the directory of links is older. Leaves it unset when WAL
// cannot be followed: restore and rehearsal look again. Errors: of the data disk; CANCELLED.
absl::Status NoteCreatedTablespaces(BackupHeader& header, absl::Time old_checkpoint,
                                    const OperationContext& context);

// Those of the WAL [start, stop) of a backup: as its manifest says, or else as its WAL says.
absl::StatusOr<TablespaceList> CreatedTablespaces(const BackupHeader& header,
                                                  const OperationContext& context);

// FAILED_PRECONDITION/RESTORE_TARGET when a place of `created` holds a tablespace of this server
// version already: replay would write into it. `version_directory`: "PG_15_202209061".
absl::Status CheckPlacesOfReplay(const std::string& target, const TablespaceList& created,
                                 const std::string& version_directory);

// The same for a replay that goes on after the backup: FAILED_PRECONDITION/RESTORE_TARGET when the
// cluster in `live_directory` is the backup's, and has a tablespace that the backup does not know.
// A directory that cannot be looked at proves nothing.
absl::Status CheckTablespacesOfLive(const std::string& target, const BackupHeader& header,
                                    const std::string& live_directory);

// FAILED_PRECONDITION/RESTORE_TARGET when replay to consistency would create a tablespace outside
// of the directory in which the backup is rehearsed.
absl::Status CheckRehearsalStaysInside(const BackupHeader& header, const OperationContext& context);

}  // namespace metal::backup
