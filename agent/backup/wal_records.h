// Follows the records of WAL through its pages and gives those of one resource manager. Source:
// PostgreSQL 13–18, src/include/access/xlogrecord.h (XLogRecord), xlog_internal.h
// (XLogPageHeaderData), xlogreader.c. Checks what it needs to stay on the track, not the records'
// CRCs: the archive has hashes of its own. Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::backup {

struct WalRecord {
  base::Lsn start;
  uint8_t info = 0;                 // xl_info: the upper four bits are the resource manager's
  std::span<const std::byte> body;  // after the header of 24 bytes; valid during the call
};

// The main data of a record that refers to no page. DATA_LOSS when the body is not of that form.
absl::StatusOr<std::span<const std::byte>> MainDataOf(const WalRecord& record);

class WalRecords {
 public:
  using Handler = std::function<absl::Status(const WalRecord&)>;
  struct Options {
    base::Lsn from, to;  // records that begin in [from, to); a record begins at `from`
    uint64_t segment_size = 16 * base::kMiB;
    uint8_t resource_manager = 0;  // whose records are given
  };

  // An error of `handler` ends the transfer and is passed on.
  WalRecords(Options options, Handler handler);

  // Takes the next bytes of WAL, in order, from the beginning of the segment that holds `from`;
  // pieces end where segments end, otherwise anywhere. DATA_LOSS when the records lose their track.
  absl::Status Add(std::span<const std::byte> bytes);
  // After the last bytes. DATA_LOSS unless every record before `to` was seen.
  absl::Status Finish() const;

 private:
  absl::Status TakePage(std::span<const std::byte> page);
  absl::StatusOr<size_t> EnterPage(base::Lsn start, std::span<const std::byte> page);
  absl::Status StartRecord(uint64_t length);
  absl::Status TakePart(std::span<const std::byte> part);
  absl::Status EndRecord();
  absl::Status Lost(base::Lsn at, std::string_view what) const;

  const Options options_;
  const Handler handler_;
  base::Lsn page_start_;         // of the next page
  std::vector<std::byte> rest_;  // of a page that began in the bytes before
  bool begun_ = false;           // `from` was passed
  bool switched_ = false;        // only zeros follow in this segment
  base::Lsn record_start_;
  uint64_t missing_ = 0;         // bytes of the present record that did not come yet
  bool wanted_ = false;          // its body is kept
  std::vector<std::byte> kept_;  // its header, and its body when wanted
  base::Lsn reached_;            // end of what was followed
};

}  // namespace metal::backup
