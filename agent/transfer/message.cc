#include "agent/transfer/message.h"

#include <bit>
#include <cstring>

#include "agent/base/check.h"
#include "agent/base/crc32c.h"
#include "agent/base/status.h"

namespace metal::transfer {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

constexpr uint32_t kMagic = 0x3158544d;  // "MTX1"
constexpr size_t kCheckedBytes = 28;     // of the header, by its CRC

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

uint32_t Crc(std::string_view bytes) { return base::Crc32c(std::as_bytes(std::span(bytes))); }

absl::Status Damaged(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss,
                     "message: {}. HINT: is the other side a metal-agent's transfer listener, of "
                     "the same version?",
                     what);
}

}  // namespace

HeaderBytes EncodeHeader(const MessageHeader& header) {
  HeaderBytes bytes{};
  std::byte* p = bytes.data();
  Put<uint32_t>(p, kMagic);
  Put<uint8_t>(p + 4, kProtocolVersion);
  Put<uint8_t>(p + 5, header.type);
  Put<uint64_t>(p + 8, header.sequence);
  Put<uint32_t>(p + 16, header.body_length);
  Put<uint32_t>(p + 20, header.payload_length);
  Put<uint32_t>(p + 24, header.body_crc32c);
  Put<uint32_t>(p + 28, base::Crc32c(std::span(bytes).first<kCheckedBytes>()));
  return bytes;
}

absl::StatusOr<MessageHeader> DecodeHeader(std::span<const std::byte, kMessageHeaderSize> bytes) {
  const std::byte* p = bytes.data();
  if (Get<uint32_t>(p) != kMagic) return Damaged("wrong magic");
  if (Get<uint32_t>(p + 28) != base::Crc32c(bytes.first<kCheckedBytes>())) {
    return Damaged("the header's checksum does not match");
  }
  if (const auto version = Get<uint8_t>(p + 4); version != kProtocolVersion) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "message: protocol version {}, this agent speaks {}. HINT: run the same "
                       "metal-agent on both nodes",
                       version, kProtocolVersion);
  }
  if (Get<uint16_t>(p + 6) != 0) return Damaged("unknown flags");
  MessageHeader header;
  header.type = Get<uint8_t>(p + 5);
  header.sequence = Get<uint64_t>(p + 8);
  header.body_length = Get<uint32_t>(p + 16);
  header.payload_length = Get<uint32_t>(p + 20);
  header.body_crc32c = Get<uint32_t>(p + 24);
  if (header.body_length > kBodyMax || header.payload_length > kPayloadMax) {
    return Damaged("length out of range");
  }
  return header;
}

absl::Status CheckBody(const MessageHeader& header, std::string_view body) {
  if (body.size() == header.body_length && Crc(body) == header.body_crc32c) return absl::OkStatus();
  return Damaged("the body's checksum does not match");
}

std::string EncodeMessage(uint8_t type, uint64_t sequence, std::string_view body,
                          uint32_t payload_length) {
  METAL_CHECK(body.size() <= kBodyMax && payload_length <= kPayloadMax);
  const HeaderBytes header =
      EncodeHeader({type, sequence, static_cast<uint32_t>(body.size()), payload_length, Crc(body)});
  std::string message(reinterpret_cast<const char*>(header.data()), header.size());
  return message.append(body);
}

FieldWriter& FieldWriter::U8(uint8_t value) {
  out_.push_back(static_cast<char>(value));
  return *this;
}

FieldWriter& FieldWriter::U32(uint32_t value) {
  out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  return *this;
}

FieldWriter& FieldWriter::U64(uint64_t value) {
  out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  return *this;
}

FieldWriter& FieldWriter::Text(std::string_view value) {
  U32(static_cast<uint32_t>(value.size()));
  out_.append(value);
  return *this;
}

std::string_view FieldReader::Take(size_t length) {
  if (!ok_ || length > rest_.size()) {
    ok_ = false;
    return {};
  }
  const std::string_view taken = rest_.substr(0, length);
  rest_.remove_prefix(length);
  return taken;
}

uint8_t FieldReader::U8() {
  const std::string_view bytes = Take(1);
  return bytes.empty() ? uint8_t{0} : static_cast<uint8_t>(bytes[0]);
}

uint32_t FieldReader::U32() {
  const std::string_view bytes = Take(sizeof(uint32_t));
  return bytes.empty() ? 0 : Get<uint32_t>(reinterpret_cast<const std::byte*>(bytes.data()));
}

uint64_t FieldReader::U64() {
  const std::string_view bytes = Take(sizeof(uint64_t));
  return bytes.empty() ? 0 : Get<uint64_t>(reinterpret_cast<const std::byte*>(bytes.data()));
}

std::string_view FieldReader::Text(size_t longest) {
  const uint32_t length = U32();
  if (length > longest) ok_ = false;
  return Take(length);
}

uint32_t FieldReader::Count(size_t least_bytes) {
  const uint32_t count = U32();
  if (count <= rest_.size() / least_bytes) return count;
  ok_ = false;
  return 0;
}

absl::Status FieldReader::Done(std::string_view what) const {
  if (ok_ && rest_.empty()) return absl::OkStatus();
  return Damaged(std::string(what) + (ok_ ? " has bytes left over" : " is cut off or too long"));
}

}  // namespace metal::transfer
