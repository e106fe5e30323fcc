#include "agent/backup/unpack_job.h"

#include "agent/backup/target_writer.h"
#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "agent/store/frame.h"

namespace metal::backup {

UnpackJob::UnpackJob(std::span<std::byte> raw_buffer, std::span<std::byte> encoded_buffer,
                     std::vector<std::unique_ptr<stream::Decoder>>& decoders, int target_directory)
    : raw(raw_buffer),
      encoded(encoded_buffer),
      decoders_(decoders),
      target_directory_(target_directory) {
  pieces.reserve(kPiecesMax);
}

void UnpackJob::Reset() {
  pieces.clear();
  pack.reset();
  reads_open = writes_open = 0;
  skip = read_end = 0;
  status = write_status = absl::OkStatus();
}

absl::Status UnpackJob::Decode(stream::Decoder& decoder) {
  if (read_end < skip + frame.stored_length) {
    return base::Error(absl::StatusCode::kDataLoss, "the pack ends inside the frame");
  }
  const auto stored = std::span<const std::byte>(encoded).subspan(skip, frame.stored_length);
  METAL_ASSIGN_OR_RETURN(const store::FrameHeader header, store::DecodeFrame(stored, raw, decoder));
  if (header.raw_length != frame.raw_length ||
      header.stored_length + store::kFrameHeaderSize != frame.stored_length) {
    return base::Error(absl::StatusCode::kDataLoss, "another frame than the file list says");
  }
  for (UnpackPiece& piece : pieces) {
    // The frame's own CRC has just been checked: it is the CRC of a piece that is the whole frame.
    piece.crc32c = piece.length == frame.raw_length
                       ? header.raw_crc32c
                       : base::Crc32c(raw.subspan(piece.frame_offset, piece.length));
  }
  return absl::OkStatus();
}

void UnpackJob::Run(size_t worker) {
  status = Decode(*decoders_[worker]);
  if (!status.ok() || target_directory_ < 0) return;
  for (const UnpackPiece& piece : pieces) {
    if (!piece.file->small || piece.file->capture) continue;
    if (piece.crc32c != piece.file->entry.crc32c) continue;  // the ring thread reports it
    write_status = WriteSmallFile(target_directory_, piece.file->entry,
                                  raw.subspan(piece.frame_offset, piece.length));
    if (!write_status.ok()) return;
  }
}

}  // namespace metal::backup
