// Proves that the WAL of a range can be replayed: reads every byte of it from the archive.
// Threading: blocks on the repository's disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/wal_archive.h"
#include "agent/observe/progress.h"

namespace metal::backup {

// Every segment of the range, and the timeline's history: present, of the right size, hashes and
// CRC as stored, and page headers of this place, timeline and cluster. Answers the number of
// segments. Sets done and total of progress's current phase. FAILED_PRECONDITION (reason
// WAL_MISSING) when some are not there; DATA_LOSS (reason REPOSITORY) names the first that is
// damaged; CANCELLED.
absl::StatusOr<uint64_t> VerifyRange(WalArchive& archive, const WalRange& range,
                                     observe::Progress& progress);

// FAILED_PRECONDITION (reason WAL_MISSING). REQUIRES: missing is not empty.
absl::Status WalMissing(const std::vector<std::string>& missing);

}  // namespace metal::backup
