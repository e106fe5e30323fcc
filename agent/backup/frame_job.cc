#include "agent/backup/frame_job.h"

#include <algorithm>
#include <cstring>

#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "agent/stream/hash.h"
#include "agent/stream/page_checksum.h"

namespace metal::backup {
namespace {

constexpr uint32_t kCheckedAtOnce = 4 * stream::kPageSize;

}  // namespace

base::BlockNumber FirstBlock(const FramePiece& piece) {
  return piece.file->first_block +
         static_cast<base::BlockNumber>(piece.file_offset / stream::kPageSize);
}

FrameJob::FrameJob(std::span<std::byte> raw_buffer, std::span<std::byte> encoded,
                   std::vector<CodecState>& states, PageRechecker* rechecker)
    : raw(raw_buffer), encoded_(encoded), states_(states), rechecker_(rechecker) {
  pieces.reserve(kPiecesMax);
  reads.reserve(kReadsMax);
}

void FrameJob::Reset() {
  pieces.clear();
  reads.clear();
  corrupt_pages.clear();
  reads_open = 0;
  filled = false;
  fill = 0;
  raw_length = 0;
  pages_in_window = 0;
  status = absl::OkStatus();
}

absl::Status FrameJob::CheckPages(FramePiece& piece, uint32_t from, uint32_t length,
                                  CodecState& state) {
  const uint64_t file_offset = piece.file_offset + from;
  const auto first = FirstBlock(piece) + static_cast<base::BlockNumber>(from / stream::kPageSize);
  const auto bytes = raw.subspan(piece.frame_offset + from, length);
  state.bad_blocks.clear();
  stream::VerifyPages(bytes, first, state.bad_blocks);
  for (const base::BlockNumber block : state.bad_blocks) {
    const size_t at = static_cast<size_t>(block - first) * stream::kPageSize;
    const SuspectPage suspect{piece.file->entry.path, piece.file->direct, file_offset + at, block};
    METAL_ASSIGN_OR_RETURN(
        const RecheckVerdict verdict,
        rechecker_->Check(suspect, bytes.subspan(at, stream::kPageSize), state.page.span()));
    if (verdict == RecheckVerdict::kInWindow) ++pages_in_window;
    if (!IsCorrupt(verdict) && verdict != RecheckVerdict::kValid) piece.unsettled.push_back(block);
    if (IsCorrupt(verdict)) {
      corrupt_pages.push_back({suspect.path, block, std::string(RecheckReason(verdict))});
    }
  }
  return absl::OkStatus();
}

// A few pages at a time: the CRC then finds in the first-level cache what the page checksum has
// just read.
absl::Status FrameJob::CheckPiece(FramePiece& piece, CodecState& state) {
  piece.crc32c = 0;
  piece.unsettled.clear();
  for (uint32_t at = 0; at < piece.got; at += kCheckedAtOnce) {
    const uint32_t length = std::min(kCheckedAtOnce, piece.got - at);
    if (piece.file->check_pages) METAL_RETURN_IF_ERROR(CheckPages(piece, at, length, state));
    piece.crc32c = base::Crc32cExtend(piece.crc32c, raw.subspan(piece.frame_offset + at, length));
  }
  return absl::OkStatus();
}

absl::Status FrameJob::Encode(CodecState& state) {
  const auto bytes = raw.first(raw_length);
  store::FrameHeader frame;
  frame.raw_length = raw_length;
  frame.raw_crc32c = pieces.size() == 1 ? pieces[0].crc32c : base::Crc32c(bytes);
  frame.codec = state.encoder->kind();
  payload_ = bytes;
  if (frame.codec != stream::CodecKind::kNone) {
    METAL_ASSIGN_OR_RETURN(const size_t length, state.encoder->Encode(bytes, encoded_));
    if (length < raw_length) {
      payload_ = encoded_.first(length);
    } else {
      frame.codec = stream::CodecKind::kNone;
    }
  }
  frame.stored_length = static_cast<uint32_t>(payload_.size());
  frame.stored_xxh3 = stream::Xxh3(payload_);
  store::EncodeFrameHeader(frame, header_);
  return absl::OkStatus();
}

void FrameJob::Run(size_t worker) {
  CodecState& state = states_[worker];
  uint32_t end = 0;  // of the bytes that count so far
  for (FramePiece& piece : pieces) {
    if (piece.got == 0) continue;
    std::memset(raw.data() + end, 0, piece.frame_offset - end);
    end = piece.frame_offset + piece.got;
    status = CheckPiece(piece, state);
    if (!status.ok()) return;
  }
  raw_length = end;
  if (raw_length > 0) status = Encode(state);
}

}  // namespace metal::backup
