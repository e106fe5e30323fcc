// A part of a file as the target of a clone takes it in. Threading: pure functions.
#pragma once

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "agent/backup/clone_protocol.h"
#include "agent/backup/file_list.h"

namespace metal::backup {

// The file that the piece is of, as far as the piece knows it.
FileEntry EntryOf(const ClonePiece& piece);

// DATA_LOSS unless `bytes` have the piece's CRC-32C and each of its pages the checksum that
// PostgreSQL gave it, but for those that the source saw being written. REQUIRES: bytes.size() ==
// piece.length.
absl::Status VerifyPiece(const ClonePiece& piece, std::span<const std::byte> bytes);

}  // namespace metal::backup
