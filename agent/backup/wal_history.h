// Sees to it that the archive has the history of a timeline: PostgreSQL archives that file once,
// when the timeline begins, so a repository that was made later would wait for it for ever.
// Threading: blocks on the data disk and the repository's.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "agent/backup/wal_archive.h"
#include "agent/base/units.h"

namespace metal::backup {

// Pushes <data_dir>/pg_wal/<timeline>.history. OK for timeline 1, which has none, when the archive
// has the same file, and when the data directory has no such file: then only the archiver can bring
// it. Errors as WalArchive::Push.
absl::Status ProvideTimelineHistory(WalArchive& archive, uint64_t system_identifier,
                                    base::TimelineId timeline, const std::string& data_dir);

}  // namespace metal::backup
