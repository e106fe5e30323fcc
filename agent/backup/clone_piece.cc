#include "agent/backup/clone_piece.h"

#include <algorithm>
#include <vector>

#include "agent/backup/clone_job.h"
#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "agent/stream/page_checksum.h"

namespace metal::backup {
namespace {

// The CRC then finds in the first-level cache what the page checksum has just read.
constexpr size_t kCheckedAtOnce = 4 * stream::kPageSize;

absl::Status VerifyPages(const ClonePiece& piece, base::BlockNumber first,
                         std::span<const std::byte> pages) {
  std::vector<base::BlockNumber> bad;  // allocates for a bad page only
  stream::VerifyPages(pages, first, bad);
  for (const base::BlockNumber block : bad) {
    if (std::find(piece.unsettled.begin(), piece.unsettled.end(), block) != piece.unsettled.end()) {
      continue;
    }
    return CloneDamage(
        fmt::format("{} block {} arrived with a checksum that does not match", piece.path, block));
  }
  return absl::OkStatus();
}

}  // namespace

FileEntry EntryOf(const ClonePiece& piece) {
  return {.path = piece.path, .size = piece.size, .mtime = piece.mtime, .mode = piece.mode};
}

absl::Status VerifyPiece(const ClonePiece& piece, std::span<const std::byte> bytes) {
  uint32_t crc = 0;
  base::BlockNumber block = piece.first_block;
  for (size_t at = 0; at < bytes.size(); at += kCheckedAtOnce) {
    const auto part = bytes.subspan(at, std::min(kCheckedAtOnce, bytes.size() - at));
    if (piece.checked) METAL_RETURN_IF_ERROR(VerifyPages(piece, block, part));
    block += static_cast<base::BlockNumber>(part.size() / stream::kPageSize);
    crc = base::Crc32cExtend(crc, part);
  }
  if (crc == piece.crc32c) return absl::OkStatus();
  return CloneDamage(
      fmt::format("{} at {} does not match its checksum", piece.path, piece.file_offset));
}

}  // namespace metal::backup
