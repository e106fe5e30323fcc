// Arbitrary bytes as an encoded frame: a decoder answers exactly the length that was asked for or
// an error; what an encoder makes of any bytes decodes to the same bytes.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "agent/base/check.h"
#include "agent/stream/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metal::stream;
  const auto bytes = std::as_bytes(std::span(data, size));
  static const auto decoder = MakeDecoder();
  for (const CodecKind kind : {CodecKind::kNone, CodecKind::kZstd, CodecKind::kLz4}) {
    for (const size_t length : {size_t{0}, size, size_t{8192}}) {
      std::vector<std::byte> raw(length);
      static_cast<void>(decoder->Decode(kind, bytes, raw));
    }
    const auto encoder = MakeEncoder(kind, 1);
    METAL_CHECK(encoder.ok());
    std::vector<std::byte> encoded(EncodedBound(size));
    const auto written = (*encoder)->Encode(bytes, encoded);
    METAL_CHECK(written.ok() && *written <= encoded.size());
    std::vector<std::byte> raw(size);
    METAL_CHECK(decoder->Decode(kind, std::span(encoded).first(*written), raw).ok());
    METAL_CHECK(std::equal(raw.begin(), raw.end(), bytes.begin()));
  }
  return 0;
}
