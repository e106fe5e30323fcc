// The codecs behind codec.h; one file each. Threading: as Encoder and Decoder.
#pragma once

#include <memory>

#include "agent/stream/codec.h"

namespace metal::stream {

absl::StatusOr<std::unique_ptr<Encoder>> MakeZstdEncoder(int level);
absl::StatusOr<std::unique_ptr<Encoder>> MakeLz4Encoder(int level);
std::unique_ptr<Encoder> MakeNoneEncoder();

size_t ZstdBound(size_t raw_size);
size_t Lz4Bound(size_t raw_size);

// A decompression context, kept from frame to frame.
class ZstdDecoder {
 public:
  ZstdDecoder();
  ~ZstdDecoder();
  ZstdDecoder(const ZstdDecoder&) = delete;
  ZstdDecoder& operator=(const ZstdDecoder&) = delete;
  absl::Status Decode(std::span<const std::byte> encoded, std::span<std::byte> raw);

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};
absl::Status DecodeLz4(std::span<const std::byte> encoded, std::span<std::byte> raw);
absl::Status DecodeNone(std::span<const std::byte> encoded, std::span<std::byte> raw);

}  // namespace metal::stream
