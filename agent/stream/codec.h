// Compression of one frame (at most 1 MiB of raw bytes), independent of every other frame.
// Threading: an Encoder or Decoder is used by one thread at a time; make one for each codec thread.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"

namespace metal::stream {

// The numbers are in the repository format.
enum class CodecKind : uint8_t { kNone = 0, kZstd = 1, kLz4 = 2 };

std::string_view CodecName(CodecKind kind);  // "none", "zstd", "lz4"
// INVALID_ARGUMENT names what is allowed.
absl::StatusOr<CodecKind> ParseCodec(std::string_view name);

// Most bytes that encoding `raw_size` bytes can give, for any codec.
size_t EncodedBound(size_t raw_size);

class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual CodecKind kind() const = 0;
  // Bytes that this object holds at most once it has encoded a frame: from nothing to about 20 MiB,
  // by codec and level.
  virtual size_t state_bytes() const = 0;
  // Bytes written to `out`. REQUIRES: out.size() >= EncodedBound(raw.size()).
  virtual absl::StatusOr<size_t> Encode(std::span<const std::byte> raw,
                                        std::span<std::byte> out) = 0;
};
// zstd levels −7 … 19, lz4 levels 1 … 12 (1–2: fast); INVALID_ARGUMENT otherwise. Level is ignored
// for none.
absl::StatusOr<std::unique_ptr<Encoder>> MakeEncoder(CodecKind kind, int level);

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Decodes exactly raw.size() bytes; DATA_LOSS when the frame is damaged or has another length.
  virtual absl::Status Decode(CodecKind kind, std::span<const std::byte> encoded,
                              std::span<std::byte> raw) = 0;
};
std::unique_ptr<Decoder> MakeDecoder();

}  // namespace metal::stream
