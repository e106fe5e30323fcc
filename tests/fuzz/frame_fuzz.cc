// Feeds arbitrary bytes to the decoders of frames and pack headers, once as they are and once with
// the checksums made right, so that the codecs behind them are reached.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "agent/base/crc32c.h"
#include "agent/store/frame.h"
#include "agent/stream/hash.h"

namespace metal::store {
namespace {

void Decode(std::span<const std::byte> bytes) {
  static const auto decoder = stream::MakeDecoder();
  static std::vector<std::byte> raw(kFrameRawMax);
  const auto header = DecodeFrame(bytes, raw, *decoder);
  if (header.ok() && header->raw_length > kFrameRawMax) __builtin_trap();
}

void DecodeWithRightChecksums(std::span<const std::byte> bytes) {
  if (bytes.size() < kFrameHeaderSize + 1) return;
  std::vector<std::byte> frame(bytes.begin(), bytes.end());
  const auto payload = std::span(frame).subspan(kFrameHeaderSize);
  FrameHeader header;
  header.codec = static_cast<stream::CodecKind>(std::to_integer<int>(frame[4]) % 3);
  std::memcpy(&header.raw_length, frame.data() + 8, 4);
  header.raw_length = header.raw_length % kFrameRawMax + 1;
  header.stored_length = static_cast<uint32_t>(std::min<size_t>(payload.size(), kFrameStoredMax));
  header.stored_xxh3 = stream::Xxh3(payload.first(header.stored_length));
  EncodeFrameHeader(header, std::span(frame).first<kFrameHeaderSize>());
  Decode(frame);
}

void DecodePack(std::span<const std::byte> bytes) {
  std::vector<std::byte> block(kPackHeaderSize);
  std::copy_n(bytes.begin(), std::min(bytes.size(), block.size() - 4), block.begin());
  const uint32_t crc = base::Crc32c(std::span(block).first(kPackHeaderSize - 4));
  std::memcpy(block.data() + kPackHeaderSize - 4, &crc, 4);
  const auto header = DecodePackHeader(std::span(block).first<kPackHeaderSize>());
  if (header.ok() && header->label.size() > 64) __builtin_trap();
}

}  // namespace
}  // namespace metal::store

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  metal::store::Decode(bytes);
  metal::store::DecodeWithRightChecksums(bytes);
  metal::store::DecodePack(bytes);
  return 0;
}
