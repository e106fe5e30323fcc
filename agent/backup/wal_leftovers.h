// WAL that a primary had not archived when it was made a standby. PostgreSQL with archive_mode = on
// archives nothing in recovery and may remove such segments at a restartpoint, and the new primary
// takes every segment that it received for archived: nobody else would ever archive them, and
// recovery to any later moment would end at the gap.
// Source: PostgreSQL 13–18, xlogarchive.c (XLogArchiveCheckDone, XLogArchiveForceDone).
// Threading: blocks on the database's disk and on the repository's; call from a thread that may
// hang.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "agent/backup/wal_archive.h"

namespace metal::backup {

struct LeftoverPlaces {
  std::string data_directory;
  std::string scratch_directory;  // on a disk with room for one segment
  uint64_t system_identifier = 0;
};

// Archives what archive_status names as ready, histories first and then in order, and notes it
// there as done. For a standby that streams: it does not archive itself, and its WAL is the
// shard's. The number of files archived. One that fails is left as it is and the rest is gone
// through; then the first error. The note of a file that the server has removed is removed, as
// PostgreSQL's archiver does.
absl::StatusOr<int> ArchiveLeftovers(const LeftoverPlaces& places, WalArchive& archive);

}  // namespace metal::backup
