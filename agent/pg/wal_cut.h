// Cuts off WAL of a timeline beyond the point at which the source's history left it. A server
// replays what lies in its pg_wal before it asks for a stream: records of a history that its source
// never had, or a record that breaks off at the end of a segment, behind which it would ask for WAL
// that the source has not written.
// Threading: a function; blocks on the data disk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::pg {

// Makes the segment of `timeline` that holds `from` zero from there on, as the end of WAL looks to
// recovery, and removes the timeline's later ones. What is before `from` stays. Answers the names
// of the segments that it changed, sorted; durable when OK, may be repeated.
// REQUIRES: the server is down, and nothing behind `from` was replayed.
absl::StatusOr<std::vector<std::string>> CutWal(const std::string& data_dir,
                                                base::TimelineId timeline, base::Lsn from,
                                                uint64_t wal_segment_size);

}  // namespace metal::pg
