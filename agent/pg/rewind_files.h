// What is kept of a data directory while pg_rewind changes it, in a directory of its own outside:
// the node's configuration, which pg_rewind replaces by the source's, and what pg_rewind reads of
// the target but removes: pg_control, and the WAL since the last common checkpoint. With these put
// back, a rewind that was cut off can be repeated from its beginning: the target's WAL names the
// same blocks again, and whatever was copied meanwhile is copied again or replayed over.
// Layout: config/, wal/, pg_control. Threading: functions; they block on both disks.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/units.h"
#include "agent/pg/control_file.h"

namespace metal::pg {

// The WAL that pg_rewind reads: segments of any timeline that hold WAL from `from` to `to`, and
// every history.
struct KeptWal {
  std::vector<std::string> files;  // names in pg_wal, sorted
  base::ByteCount bytes;
};
struct WalStretch {
  base::Lsn from, to;
};
absl::StatusOr<KeptWal> FindRewindWal(const std::string& data_dir, const WalStretch& stretch,
                                      uint64_t wal_segment_size);

// Copies configuration, pg_control and `wal` into `keep_dir`, which is emptied first. Durable when
// OK. RESOURCE_EXHAUSTED when the disk is full; the data directory is not touched.
absl::Status KeepForRewind(const std::string& data_dir, const KeptWal& wal,
                           const std::string& keep_dir);

// Puts back pg_control and WAL, and removes the backup_label and tablespace_map that pg_rewind
// wrote. Durable, may be repeated.
absl::Status PutBackWal(const std::string& keep_dir, const std::string& data_dir);

// A timeline of the source's history, and where it ended.
struct TimelineEnd {
  base::TimelineId timeline = 0;
  base::Lsn end;
};
// After pg_rewind: puts back whole segments of WAL that both have and that are not there any more.
// Some versions (13.16) remove them when the source has recycled them already, and the target could
// never start from the checkpoint that it was taken back to. Answers how many. Durable, may be
// repeated.
absl::StatusOr<int> PutBackSharedWal(const std::string& keep_dir, const std::string& data_dir,
                                     const std::vector<TimelineEnd>& history,
                                     uint64_t wal_segment_size);

// Puts back the configuration over what came from the source. Durable, may be repeated.
absl::Status PutBackConfiguration(const std::string& keep_dir, const std::string& data_dir);

// Stores WAL that is missing in pg_wal: `fill` hands its bytes to the sink. The name appears when
// all of them are durable, or not at all.
using SegmentSink = std::function<absl::Status(std::span<const std::byte>)>;
absl::Status StoreSegment(const std::string& data_dir, const std::string& name,
                          const std::function<absl::Status(const SegmentSink&)>& fill);

// Writes pg_wal/<timeline>.history when it is not there: a start then knows to which timeline it
// has to go before it has met its source. Empty text (timeline 1): nothing.
absl::Status WriteTimelineHistory(const std::string& data_dir, base::TimelineId timeline,
                                  const std::string& text);

}  // namespace metal::pg
