// Looks at every page header of a WAL segment: right bytes of a wrong file, or of one that was
// damaged before it was archived, pass each hash of the archive and end a recovery. Source:
// PostgreSQL 13–18, src/include/access/xlog_internal.h (XLogPageHeaderData) and
// CopyXLogRecordToWAL, which leaves pages after a segment switch all zero. Threading: one thread at
// a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "agent/backup/wal_segment.h"
#include "agent/base/units.h"

namespace metal::backup {

class WalPages {
 public:
  // `file` is a segment of the cluster. Pages that begin before `needed` must not be empty.
  WalPages(WalFile file, uint64_t system_identifier, base::Lsn needed);

  // Takes the segment's next bytes. DATA_LOSS for a page that does not belong there.
  absl::Status Add(std::span<const std::byte> bytes);
  // After the last bytes. DATA_LOSS unless they were exactly one segment.
  absl::Status Finish() const;

 private:
  absl::Status Begin(std::span<const std::byte> bytes);
  absl::Status CheckPage(std::span<const std::byte> page);
  absl::Status Wrong(std::string_view what) const;

  const WalFile file_;
  const uint64_t system_identifier_;
  const base::Lsn needed_;
  WalSegmentHeader header_;  // of the first page
  uint64_t offset_ = 0;      // of the next page
  base::TimelineId timeline_ = 0;
  bool ended_ = false;           // by a segment switch: only zeros follow
  std::vector<std::byte> rest_;  // of a page that began in the bytes before
};

}  // namespace metal::backup
