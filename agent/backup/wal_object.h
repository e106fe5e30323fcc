// The bytes of a file in the WAL archive: a header of 128 bytes, then frames of the repository
// (agent/store/frame.h), each of 1 MiB raw bytes but the last. Specification:
// agent/docs/repository-format-wal.md. Integers are little-endian. Threading: WalFrameCodec is used
// by one thread at a time; the functions are pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/store/frame.h"
#include "agent/stream/codec.h"

namespace metal::backup {

inline constexpr size_t kWalObjectHeaderSize = 128;
inline constexpr size_t kWalFrameBytes = store::kFrameRawMax;

struct WalObjectHeader {
  uint64_t system_identifier = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;  // of everything after this header
  uint64_t digest = 0;        // WalDigest of the raw bytes
  uint32_t raw_crc32c = 0;    // CRC-32C of the raw bytes
  std::string name;           // at most 63 characters
};

// REQUIRES: name fits.
std::array<std::byte, kWalObjectHeaderSize> EncodeWalObjectHeader(const WalObjectHeader& header);
// DATA_LOSS when magic, checksum or a field is wrong; UNIMPLEMENTED for a newer version.
absl::StatusOr<WalObjectHeader> DecodeWalObjectHeader(std::span<const std::byte> bytes);

// Digest of a file's raw bytes that is built piece by piece: XXH3-64 of the pieces' XXH3-64 values,
// 8 bytes each, in order. A piece is kWalFrameBytes long but for the last. Also sums up length and
// CRC-32C.
class WalDigest {
 public:
  void Add(std::span<const std::byte> piece);
  uint64_t raw_bytes() const { return raw_bytes_; }
  uint32_t raw_crc32c() const { return crc_; }
  uint64_t digest() const;

 private:
  uint64_t raw_bytes_ = 0;
  uint32_t crc_ = 0;
  std::vector<uint64_t> hashes_;
};

// Encodes and decodes frames with buffers that it keeps: 2 MiB and the codecs' own state.
class WalFrameCodec {
 public:
  // REQUIRES: MakeEncoder accepts codec and level.
  WalFrameCodec(std::unique_ptr<stream::Encoder> encoder, std::unique_ptr<stream::Decoder> decoder);

  // Room for the raw bytes of one frame.
  std::span<std::byte> raw() { return raw_; }
  // Room for one stored frame, header and payload.
  std::span<std::byte> stored() { return stored_; }

  // Encodes the first `raw_bytes` of raw() into a frame inside this object. Payloads that do not
  // shrink are stored as they are.
  absl::StatusOr<std::span<const std::byte>> Encode(size_t raw_bytes);
  // Decodes the frame in stored() into raw(). DATA_LOSS when it is damaged.
  absl::StatusOr<std::span<const std::byte>> Decode(size_t stored_bytes);

 private:
  std::unique_ptr<stream::Encoder> encoder_;
  std::unique_ptr<stream::Decoder> decoder_;
  std::vector<std::byte> raw_;
  std::vector<std::byte> stored_;
};

}  // namespace metal::backup
