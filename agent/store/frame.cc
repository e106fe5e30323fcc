#include "agent/store/frame.h"

#include <bit>
#include <cstring>
#include <string_view>

#include "agent/base/check.h"
#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "agent/stream/hash.h"

namespace metal::store {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

constexpr uint32_t kFrameMagic = 0x314d5246;  // "FRM1"
constexpr std::string_view kPackMagic = "METALPK1";
constexpr uint32_t kPackVersion = 1;

template <typename T>
void Put(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}
template <typename T>
T Get(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

absl::Status Damaged(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss, "{}", what);
}

}  // namespace

void EncodeFrameHeader(const FrameHeader& header, std::span<std::byte, kFrameHeaderSize> out) {
  std::byte* p = out.data();
  Put<uint32_t>(p, kFrameMagic);
  Put<uint8_t>(p + 4, static_cast<uint8_t>(header.codec));
  Put<uint8_t>(p + 5, 0);
  Put<uint16_t>(p + 6, 0);
  Put<uint32_t>(p + 8, header.raw_length);
  Put<uint32_t>(p + 12, header.stored_length);
  Put<uint64_t>(p + 16, header.stored_xxh3);
  Put<uint32_t>(p + 24, header.raw_crc32c);
  Put<uint32_t>(p + 28, base::Crc32c(out.first(28)));
}

absl::StatusOr<FrameHeader> DecodeFrameHeader(std::span<const std::byte, kFrameHeaderSize> bytes) {
  const std::byte* p = bytes.data();
  if (Get<uint32_t>(p) != kFrameMagic) return Damaged("frame header: wrong magic");
  if (Get<uint32_t>(p + 28) != base::Crc32c(bytes.first(28))) {
    return Damaged("frame header: checksum does not match");
  }
  FrameHeader header;
  const auto codec = Get<uint8_t>(p + 4);
  header.codec = static_cast<stream::CodecKind>(codec);
  header.raw_length = Get<uint32_t>(p + 8);
  header.stored_length = Get<uint32_t>(p + 12);
  header.stored_xxh3 = Get<uint64_t>(p + 16);
  header.raw_crc32c = Get<uint32_t>(p + 24);
  if (codec > 2) return Damaged("frame header: unknown codec");
  if (Get<uint8_t>(p + 5) != 0 || Get<uint16_t>(p + 6) != 0) {
    return Damaged("frame header: unknown flags");
  }
  if (header.raw_length == 0 || header.raw_length > kFrameRawMax || header.stored_length == 0 ||
      header.stored_length > kFrameStoredMax) {
    return Damaged("frame header: length out of range");
  }
  return header;
}

void EncodePackHeader(const PackHeader& header, std::span<std::byte, kPackHeaderSize> out) {
  METAL_CHECK(header.label.size() <= 64);
  std::byte* p = out.data();
  std::memset(p, 0, kPackHeaderSize);
  std::memcpy(p, kPackMagic.data(), kPackMagic.size());
  Put<uint32_t>(p + 8, kPackVersion);
  Put<uint32_t>(p + 12, header.number);
  Put<uint64_t>(p + 16, header.system_identifier);
  Put<uint32_t>(p + 24, static_cast<uint32_t>(header.label.size()));
  std::memcpy(p + 32, header.label.data(), header.label.size());
  Put<uint32_t>(p + 4092, base::Crc32c(out.first(4092)));
}

absl::StatusOr<PackHeader> DecodePackHeader(std::span<const std::byte, kPackHeaderSize> bytes) {
  const std::byte* p = bytes.data();
  if (std::memcmp(p, kPackMagic.data(), kPackMagic.size()) != 0) {
    return Damaged("pack header: wrong magic");
  }
  if (Get<uint32_t>(p + 4092) != base::Crc32c(bytes.first(4092))) {
    return Damaged("pack header: checksum does not match");
  }
  if (Get<uint32_t>(p + 8) != kPackVersion) return Damaged("pack header: unknown version");
  const auto label_length = Get<uint32_t>(p + 24);
  if (label_length > 64) return Damaged("pack header: label too long");
  PackHeader header;
  header.number = Get<uint32_t>(p + 12);
  header.system_identifier = Get<uint64_t>(p + 16);
  header.label.assign(reinterpret_cast<const char*>(p + 32), label_length);
  return header;
}

absl::StatusOr<FrameHeader> DecodeFrame(std::span<const std::byte> stored, std::span<std::byte> raw,
                                        stream::Decoder& decoder) {
  if (stored.size() < kFrameHeaderSize) return Damaged("frame is cut off in its header");
  METAL_ASSIGN_OR_RETURN(const FrameHeader header,
                         DecodeFrameHeader(stored.first<kFrameHeaderSize>()));
  if (stored.size() < kFrameHeaderSize + header.stored_length) return Damaged("frame is cut off");
  if (raw.size() < header.raw_length) return Damaged("frame is longer than the file list says");
  const auto payload = stored.subspan(kFrameHeaderSize, header.stored_length);
  if (stream::Xxh3(payload) != header.stored_xxh3) {
    return Damaged("payload of the frame does not match its hash");
  }
  const auto out = raw.first(header.raw_length);
  METAL_RETURN_IF_ERROR(decoder.Decode(header.codec, payload, out));
  if (base::Crc32c(out) != header.raw_crc32c) {
    return Damaged("decoded frame does not match its checksum");
  }
  return header;
}

}  // namespace metal::store
