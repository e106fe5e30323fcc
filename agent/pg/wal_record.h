// Where a WAL record ends. Source: PostgreSQL src/include/access/xlogrecord.h (xl_tot_len comes
// first, records are aligned to 8 bytes), xlog_internal.h (page headers).
// Threading: RecordEnd is pure; ReadRecordEnd blocks on the data disk.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::pg {

// The place of a record of `length` bytes that begins at `start`, page headers counted in, rounded
// up to 8 bytes: a standby that has flushed up to it has the record.
base::Lsn RecordEnd(base::Lsn start, uint32_t length, uint64_t wal_segment_size,
                    uint32_t wal_block_size);

struct RecordPlace {
  base::TimelineId timeline = 0;
  base::Lsn start;
  uint64_t wal_segment_size = 0;  // bytes
  uint32_t wal_block_size = 0;    // bytes
};
// The same with the length read from pg_wal of the data directory. DATA_LOSS for a length that no
// record has.
absl::StatusOr<base::Lsn> ReadRecordEnd(const std::string& data_dir, const RecordPlace& place);

// Where recovery begins that starts from the checkpoint record at `place`. DATA_LOSS when there is
// no checkpoint record; NOT_FOUND when its segment is not there; OUT_OF_RANGE when it goes over a
// page's end, which is not looked behind.
absl::StatusOr<base::Lsn> ReadCheckpointRedo(const std::string& data_dir, const RecordPlace& place);

}  // namespace metal::pg
