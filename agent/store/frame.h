// The binary layout of packs: a 4 KiB header, then frames back to back. A frame is a 32-byte header
// and a payload of at most 1 MiB of raw bytes, encoded independently of every other frame. All
// numbers are little-endian. Source: agent/docs/repository-format.md. Threading: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/stream/codec.h"

namespace metal::store {

inline constexpr uint32_t kFrameRawMax = 1 << 20;  // raw bytes of a frame
inline constexpr size_t kFrameHeaderSize = 32;
inline constexpr uint32_t kFrameStoredMax =
    kFrameRawMax;  // a payload that would be longer is stored with codec none
inline constexpr size_t kPackHeaderSize = 4096;
inline constexpr uint64_t kPackSizeMax = 1ull
                                         << 30;  // a pack is closed before a frame would pass this

struct FrameHeader {
  stream::CodecKind codec = stream::CodecKind::kNone;
  uint32_t raw_length = 0;     // 1..kFrameRawMax
  uint32_t stored_length = 0;  // payload bytes, 1..kFrameStoredMax
  uint64_t stored_xxh3 = 0;    // XXH3-64 of the payload
  uint32_t raw_crc32c = 0;     // CRC-32C of the raw bytes
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

void EncodeFrameHeader(const FrameHeader& header, std::span<std::byte, kFrameHeaderSize> out);
// DATA_LOSS when the magic, the header's own CRC or a field is wrong.
absl::StatusOr<FrameHeader> DecodeFrameHeader(std::span<const std::byte, kFrameHeaderSize> bytes);

struct PackHeader {
  uint64_t system_identifier = 0;
  uint32_t number = 0;  // n of <n>.pack, from 1
  std::string label;    // of the backup that wrote it, at most 64 bytes
  friend bool operator==(const PackHeader&, const PackHeader&) = default;
};
void EncodePackHeader(const PackHeader& header, std::span<std::byte, kPackHeaderSize> out);
absl::StatusOr<PackHeader> DecodePackHeader(std::span<const std::byte, kPackHeaderSize> bytes);

// Decodes one frame as it lies in a pack: header, then payload. `raw` gets header.raw_length bytes
// and must be as long. Checks the header, the payload's hash, the decoding and the CRC of the raw
// bytes. DATA_LOSS says which one failed. REQUIRES: raw.size() >= the header's raw_length is
// checked, not assumed.
absl::StatusOr<FrameHeader> DecodeFrame(std::span<const std::byte> stored, std::span<std::byte> raw,
                                        stream::Decoder& decoder);

}  // namespace metal::store
