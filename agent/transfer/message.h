// The framing of what agents send each other directly, beside gRPC: messages of a 32-byte header, a
// body of small fields and a payload of bulk bytes. All numbers are little-endian. Layout of the
// header: magic "MTX1", version (1 byte), type (1), zero (2), sequence (8), body length (4),
// payload length (4), CRC-32C of the body (4), CRC-32C of the 28 bytes before (4). Whoever sends a
// payload puts its checksum into the body. Lengths are bounded before anything is allocated.
// Threading: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::transfer {

inline constexpr uint8_t kProtocolVersion = 1;
inline constexpr size_t kMessageHeaderSize = 32;
inline constexpr uint32_t kBodyMax = 256 << 10;
inline constexpr uint32_t kPayloadMax = (1 << 20) + 32;  // a frame of 1 MiB with its own header

struct MessageHeader {
  uint8_t type = 0;
  uint64_t sequence = 0;  // 0: not to be acknowledged
  uint32_t body_length = 0;
  uint32_t payload_length = 0;
  uint32_t body_crc32c = 0;
  friend bool operator==(const MessageHeader&, const MessageHeader&) = default;
};

using HeaderBytes = std::array<std::byte, kMessageHeaderSize>;

HeaderBytes EncodeHeader(const MessageHeader& header);
// DATA_LOSS when the magic, the header's own CRC or a reserved field is wrong or a length is too
// large; UNIMPLEMENTED for another version.
absl::StatusOr<MessageHeader> DecodeHeader(std::span<const std::byte, kMessageHeaderSize> bytes);
// DATA_LOSS unless the body has the CRC that its header says.
absl::Status CheckBody(const MessageHeader& header, std::string_view body);

// Header and body of one message, ready to be written before `payload_length` bytes of payload.
// REQUIRES: body.size() <= kBodyMax, payload_length <= kPayloadMax.
std::string EncodeMessage(uint8_t type, uint64_t sequence, std::string_view body,
                          uint32_t payload_length = 0);

// Appends fields to a body.
class FieldWriter {
 public:
  FieldWriter& U8(uint8_t value);
  FieldWriter& U32(uint32_t value);
  FieldWriter& U64(uint64_t value);
  FieldWriter& Text(std::string_view value);  // length (4), bytes
  std::string Take() { return std::move(out_); }
  size_t size() const { return out_.size(); }

 private:
  std::string out_;
};

// Reads them back. After a field that is not there, or longer than what is left, every later one is
// 0 or empty and Done() is an error: callers read all fields and then ask once.
class FieldReader {
 public:
  explicit FieldReader(std::string_view body) : rest_(body) {}
  uint8_t U8();
  uint32_t U32();
  uint64_t U64();
  std::string_view Text(size_t longest);  // points into the body
  // A count of things that follow, each at least `least_bytes` long: never more than can be there.
  uint32_t Count(size_t least_bytes);
  bool ok() const { return ok_; }
  // DATA_LOSS when a field was missing or bytes are left over.
  absl::Status Done(std::string_view what) const;

 private:
  std::string_view Take(size_t length);
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace metal::transfer
