#include "agent/backup/wal_object.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "agent/base/check.h"
#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "agent/stream/hash.h"

namespace metal::backup {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

constexpr std::string_view kMagic = "METALWL1";
constexpr uint32_t kVersion = 1;
constexpr size_t kNameOffset = 56, kNameSize = 64, kReservedOffset = 120, kCrcOffset = 124;

template <typename T>
void Put(std::span<std::byte> out, size_t offset, T value) {
  std::memcpy(out.data() + offset, &value, sizeof value);
}

template <typename T>
T Get(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

absl::Status Damaged(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss, "archive header: {}", what);
}

}  // namespace

std::array<std::byte, kWalObjectHeaderSize> EncodeWalObjectHeader(const WalObjectHeader& header) {
  METAL_CHECK(header.name.size() < kNameSize);
  std::array<std::byte, kWalObjectHeaderSize> out{};
  std::memcpy(out.data(), kMagic.data(), kMagic.size());
  Put<uint32_t>(out, 8, kVersion);
  Put<uint32_t>(out, 12, kWalFrameBytes);
  Put(out, 16, header.system_identifier);
  Put(out, 24, header.raw_bytes);
  Put(out, 32, header.stored_bytes);
  Put(out, 40, header.digest);
  Put(out, 48, header.raw_crc32c);
  std::memcpy(out.data() + kNameOffset, header.name.data(), header.name.size());
  Put(out, kCrcOffset, base::Crc32c(std::span(out).first(kCrcOffset)));
  return out;
}

absl::StatusOr<WalObjectHeader> DecodeWalObjectHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kWalObjectHeaderSize) return Damaged("cut off");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return Damaged("wrong magic");
  if (Get<uint32_t>(bytes, kCrcOffset) != base::Crc32c(bytes.first(kCrcOffset))) {
    return Damaged("checksum does not match");
  }
  if (const auto version = Get<uint32_t>(bytes, 8); version != kVersion) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "archive header: format version {} is not known. HINT: upgrade the agent",
                       version);
  }
  if (Get<uint32_t>(bytes, 12) != kWalFrameBytes || Get<uint32_t>(bytes, 52) != 0 ||
      Get<uint32_t>(bytes, kReservedOffset) != 0) {
    return Damaged("unknown parameters");
  }
  WalObjectHeader header;
  header.system_identifier = Get<uint64_t>(bytes, 16);
  header.raw_bytes = Get<uint64_t>(bytes, 24);
  header.stored_bytes = Get<uint64_t>(bytes, 32);
  header.digest = Get<uint64_t>(bytes, 40);
  header.raw_crc32c = Get<uint32_t>(bytes, 48);
  const char* name = reinterpret_cast<const char*>(bytes.data() + kNameOffset);
  header.name.assign(name, strnlen(name, kNameSize));
  if (header.name.size() == kNameSize) return Damaged("name is not terminated");
  return header;
}

void WalDigest::Add(std::span<const std::byte> piece) {
  raw_bytes_ += piece.size();
  crc_ = base::Crc32cExtend(crc_, piece);
  hashes_.push_back(stream::Xxh3(piece));
}

uint64_t WalDigest::digest() const { return stream::Xxh3(std::as_bytes(std::span(hashes_))); }

WalFrameCodec::WalFrameCodec(std::unique_ptr<stream::Encoder> encoder,
                             std::unique_ptr<stream::Decoder> decoder)
    : encoder_(std::move(encoder)),
      decoder_(std::move(decoder)),
      raw_(kWalFrameBytes),
      stored_(store::kFrameHeaderSize + stream::EncodedBound(kWalFrameBytes)) {}

absl::StatusOr<std::span<const std::byte>> WalFrameCodec::Encode(size_t raw_bytes) {
  METAL_CHECK(raw_bytes > 0 && raw_bytes <= raw_.size());
  const std::span<const std::byte> input(raw_.data(), raw_bytes);
  const std::span<std::byte> payload = std::span(stored_).subspan(store::kFrameHeaderSize);
  METAL_ASSIGN_OR_RETURN(size_t encoded, encoder_->Encode(input, payload));
  store::FrameHeader header;
  header.codec = encoder_->kind();
  if (encoded >= raw_bytes) {
    header.codec = stream::CodecKind::kNone;
    encoded = raw_bytes;
    std::copy(input.begin(), input.end(), payload.begin());
  }
  header.raw_length = static_cast<uint32_t>(raw_bytes);
  header.stored_length = static_cast<uint32_t>(encoded);
  header.stored_xxh3 = stream::Xxh3(payload.first(encoded));
  header.raw_crc32c = base::Crc32c(input);
  store::EncodeFrameHeader(header, std::span(stored_).first<store::kFrameHeaderSize>());
  return std::span<const std::byte>(stored_.data(), store::kFrameHeaderSize + encoded);
}

absl::StatusOr<std::span<const std::byte>> WalFrameCodec::Decode(size_t stored_bytes) {
  METAL_CHECK(stored_bytes <= stored_.size());
  METAL_ASSIGN_OR_RETURN(
      const store::FrameHeader header,
      store::DecodeFrame(std::span(stored_).first(stored_bytes), raw_, *decoder_));
  return std::span<const std::byte>(raw_.data(), header.raw_length);
}

}  // namespace metal::backup
