// Names and first bytes of the files that PostgreSQL archives: what may enter the WAL archive.
// Source: PostgreSQL 13–18, src/include/access/xlog_internal.h (names, XLogLongPageHeaderData) and
// timeline.c. Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::backup {

enum class WalFileKind {
  kSegment,  // 0000000100000000000000A3
  kPartial,  // 0000000100000000000000A3.partial: the last, unfinished segment of a timeline that
             // ended
  kHistory,  // 00000002.history
  kBackup,   // 0000000100000000000000A3.00000028.backup: the label of a base backup
};

struct WalFile {
  WalFileKind kind = WalFileKind::kSegment;
  base::TimelineId timeline = 0;
  std::string name;  // as given
};

// nullopt for every name that PostgreSQL does not archive: another length, lower-case digits,
// timeline 0, a path.
std::optional<WalFile> ParseWalFile(std::string_view name);

// The first page header of a segment.
struct WalSegmentHeader {
  uint16_t page_magic = 0;  // 0xD106 in PostgreSQL 13, grows with each major version
  base::TimelineId timeline =
      0;              // of the page; in a timeline's first segment it may be an ancestor's
  base::Lsn address;  // of the segment's first byte
  uint64_t system_identifier = 0;
  uint32_t segment_size = 0;  // bytes
  uint32_t block_size = 0;    // bytes
};
inline constexpr size_t kWalSegmentHeaderSize = 40;

// INVALID_ARGUMENT unless `bytes` begins with a long page header of PostgreSQL 13 or newer.
absl::StatusOr<WalSegmentHeader> DecodeWalSegmentHeader(std::span<const std::byte> bytes);

// Bytes of the beginning that CheckWalContent wants to see; all of the file when it is shorter.
inline constexpr size_t kWalCheckBytes = 64 << 10;
// Longest .history and .backup file that is accepted.
inline constexpr uint64_t kMaxWalTextBytes = kWalCheckBytes;

// Whether a file of `size` bytes that starts with `beginning` can be `file` of the cluster
// `system_identifier` (0: any; .history and .backup files carry no identifier). Answers the cluster
// it belongs to. INVALID_ARGUMENT when the contents do not fit the name; FAILED_PRECONDITION when
// it belongs to another cluster.
absl::StatusOr<uint64_t> CheckWalContent(const WalFile& file, std::span<const std::byte> beginning,
                                         uint64_t size, uint64_t system_identifier);

}  // namespace metal::backup
