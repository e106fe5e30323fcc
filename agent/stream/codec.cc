#include "agent/stream/codec.h"

#include <algorithm>

#include "agent/base/status.h"
#include "agent/stream/codec_variants.h"

namespace metal::stream {
namespace {

struct CodecRow {
  CodecKind kind;
  std::string_view name;
};
constexpr CodecRow kCodecs[] = {
    {CodecKind::kNone, "none"}, {CodecKind::kZstd, "zstd"}, {CodecKind::kLz4, "lz4"}};

class AnyDecoder final : public Decoder {
 public:
  absl::Status Decode(CodecKind kind, std::span<const std::byte> encoded,
                      std::span<std::byte> raw) override {
    switch (kind) {
      case CodecKind::kNone:
        return DecodeNone(encoded, raw);
      case CodecKind::kZstd:
        return zstd_.Decode(encoded, raw);
      case CodecKind::kLz4:
        return DecodeLz4(encoded, raw);
    }
    return base::Error(absl::StatusCode::kDataLoss, "frame names unknown codec {}",
                       static_cast<int>(kind));
  }

 private:
  ZstdDecoder zstd_;
};

}  // namespace

std::string_view CodecName(CodecKind kind) {
  for (const CodecRow& row : kCodecs) {
    if (row.kind == kind) return row.name;
  }
  return "unknown";
}

absl::StatusOr<CodecKind> ParseCodec(std::string_view name) {
  for (const CodecRow& row : kCodecs) {
    if (row.name == name) return row.kind;
  }
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "unknown codec \"{}\". HINT: use zstd, lz4 or none", name);
}

size_t EncodedBound(size_t raw_size) {
  return std::max({raw_size, ZstdBound(raw_size), Lz4Bound(raw_size)});
}

absl::StatusOr<std::unique_ptr<Encoder>> MakeEncoder(CodecKind kind, int level) {
  switch (kind) {
    case CodecKind::kNone:
      return MakeNoneEncoder();
    case CodecKind::kZstd:
      return MakeZstdEncoder(level);
    case CodecKind::kLz4:
      return MakeLz4Encoder(level);
  }
  return base::Error(absl::StatusCode::kInvalidArgument, "unknown codec {}",
                     static_cast<int>(kind));
}

std::unique_ptr<Decoder> MakeDecoder() { return std::make_unique<AnyDecoder>(); }

}  // namespace metal::stream
