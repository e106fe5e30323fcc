// What one agent believes of another while it clones: headers, every body and the lines of records,
// on arbitrary bytes. Whatever decodes stays within its limits and encodes to what decodes alike.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "agent/backup/clone_protocol.h"
#include "agent/base/check.h"
#include "agent/store/frame.h"
#include "agent/transfer/message.h"

using namespace metal::backup;
using namespace metal::transfer;

namespace {

template <typename Decoded>
void CheckAgain(const Decoded& decoded, std::string_view body) {
  if (decoded.ok()) METAL_CHECK(Encode(*decoded) == body);
}

void CheckHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kMessageHeaderSize) return;
  const auto header = DecodeHeader(bytes.first<kMessageHeaderSize>());
  if (!header.ok()) return;
  METAL_CHECK(header->body_length <= kBodyMax && header->payload_length <= kPayloadMax);
  const HeaderBytes again = EncodeHeader(*header);
  METAL_CHECK(std::equal(again.begin(), again.end(), bytes.begin()));
}

// Random bytes never have the right checksum: the fields are tried with one that is made right.
void CheckMendedHeader(std::span<const std::byte> bytes) {
  FieldReader in(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  const MessageHeader header{in.U8(), in.U64(), in.U32(), in.U32(), in.U32()};
  const auto decoded = DecodeHeader(EncodeHeader(header));
  const bool small = header.body_length <= kBodyMax && header.payload_length <= kPayloadMax;
  METAL_CHECK(decoded.ok() == small && (!small || *decoded == header));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto bytes = std::as_bytes(std::span(data, size));
  CheckHeader(bytes);
  CheckMendedHeader(bytes);
  CheckAgain(DecodeCloneHello(body), body);
  CheckAgain(DecodeCloneBegin(body), body);
  CheckAgain(DecodeCloneStatus(body), body);
  CheckAgain(DecodeCloneAttach(body), body);
  CheckAgain(DecodeCloneEnd(body), body);
  (void)DecodeCloneWelcome(body);  // a map may name an OID twice
  (void)DecodeClonePlan(body);
  if (const auto message = DecodeCloneGiveUp(body); message.ok()) METAL_CHECK(!message->why.ok());
  if (const auto frame = DecodeCloneData(body); frame.ok()) {
    METAL_CHECK(!frame->pieces.empty() && frame->pieces.size() <= kClonePiecesMax);
    for (const ClonePiece& piece : frame->pieces) {
      METAL_CHECK(IsSafePath(piece.path) && piece.length > 0 &&
                  uint64_t{piece.frame_offset} + piece.length <= metal::store::kFrameRawMax &&
                  piece.file_offset + piece.length <= piece.size);
    }
    const auto again = DecodeCloneData(Encode(*frame));
    METAL_CHECK(again.ok() && again->pieces == frame->pieces);
  }
  METAL_CHECK(!DecodeFailure(body).ok());
  return 0;
}
