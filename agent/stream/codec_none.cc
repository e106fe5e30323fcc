#include <cstring>

#include "agent/base/check.h"
#include "agent/base/status.h"
#include "agent/stream/codec_variants.h"

namespace metal::stream {
namespace {

class NoneEncoder final : public Encoder {
 public:
  CodecKind kind() const override { return CodecKind::kNone; }
  size_t state_bytes() const override { return 0; }
  absl::StatusOr<size_t> Encode(std::span<const std::byte> raw, std::span<std::byte> out) override {
    METAL_CHECK(out.size() >= raw.size());
    if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
    return raw.size();
  }
};

}  // namespace

std::unique_ptr<Encoder> MakeNoneEncoder() { return std::make_unique<NoneEncoder>(); }

absl::Status DecodeNone(std::span<const std::byte> encoded, std::span<std::byte> raw) {
  if (encoded.size() != raw.size()) {
    return base::Error(absl::StatusCode::kDataLoss, "stored frame has {} bytes instead of {}",
                       encoded.size(), raw.size());
  }
  if (!raw.empty()) std::memcpy(raw.data(), encoded.data(), raw.size());
  return absl::OkStatus();
}

}  // namespace metal::stream
