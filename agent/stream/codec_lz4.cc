// Raw LZ4 blocks: the frame's lengths are in the manifest, so LZ4's own frame format would only add
// bytes.
#include <lz4.h>
#include <lz4hc.h>

#include <cstdint>
#include <limits>

#include "agent/base/check.h"
#include "agent/base/status.h"
#include "agent/stream/codec_variants.h"

namespace metal::stream {
namespace {

constexpr int kMinLevel = 1;
constexpr int kFirstHighLevel = 3;  // LZ4HC from here on, as the lz4 program does
constexpr int kMaxLevel = 12;

// Never null: LZ4HC reads through the pointer of an empty input.
const char* Chars(std::span<const std::byte> bytes) {
  return bytes.empty() ? "" : reinterpret_cast<const char*>(bytes.data());
}
char* Chars(std::span<std::byte> bytes) { return reinterpret_cast<char*>(bytes.data()); }

class Lz4Encoder final : public Encoder {
 public:
  explicit Lz4Encoder(int level)
      : level_(level),
        state_(std::make_unique<State[]>((state_bytes() + sizeof(State) - 1) / sizeof(State))) {}

  CodecKind kind() const override { return CodecKind::kLz4; }
  size_t state_bytes() const override {
    return static_cast<size_t>(high() ? LZ4_sizeofStateHC() : LZ4_sizeofState());
  }
  absl::StatusOr<size_t> Encode(std::span<const std::byte> raw, std::span<std::byte> out) override {
    METAL_CHECK(raw.size() <= LZ4_MAX_INPUT_SIZE && out.size() >= Lz4Bound(raw.size()));
    const int raw_size = static_cast<int>(raw.size());
    const int capacity = static_cast<int>(Lz4Bound(raw.size()));
    const int written = high() ? LZ4_compress_HC_extStateHC(state_.get(), Chars(raw), Chars(out),
                                                            raw_size, capacity, level_)
                               : LZ4_compress_fast_extState(state_.get(), Chars(raw), Chars(out),
                                                            raw_size, capacity, /*acceleration=*/1);
    if (written <= 0) return base::Error(absl::StatusCode::kInternal, "lz4 encoder failed");
    return static_cast<size_t>(written);
  }

 private:
  using State = uint64_t;  // LZ4 asks for 8-byte alignment
  bool high() const { return level_ >= kFirstHighLevel; }

  const int level_;
  const std::unique_ptr<State[]> state_;
};

}  // namespace

size_t Lz4Bound(size_t raw_size) {
  METAL_CHECK(raw_size <= LZ4_MAX_INPUT_SIZE);
  return static_cast<size_t>(LZ4_compressBound(static_cast<int>(raw_size)));
}

absl::StatusOr<std::unique_ptr<Encoder>> MakeLz4Encoder(int level) {
  if (level < kMinLevel || level > kMaxLevel) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "lz4 level {} is outside {} to {}. HINT: 1 is the fastest", level, kMinLevel,
                       kMaxLevel);
  }
  return std::make_unique<Lz4Encoder>(level);
}

absl::Status DecodeLz4(std::span<const std::byte> encoded, std::span<std::byte> raw) {
  constexpr size_t kMax = std::numeric_limits<int>::max();
  if (encoded.size() > kMax || raw.size() > kMax) {
    return base::Error(absl::StatusCode::kDataLoss, "lz4 frame of {} bytes is too long",
                       encoded.size());
  }
  const int decoded = LZ4_decompress_safe(
      Chars(encoded), Chars(raw), static_cast<int>(encoded.size()), static_cast<int>(raw.size()));
  if (decoded < 0) return base::Error(absl::StatusCode::kDataLoss, "lz4 frame is damaged");
  if (static_cast<size_t>(decoded) != raw.size()) {
    return base::Error(absl::StatusCode::kDataLoss, "lz4 frame decodes to {} bytes instead of {}",
                       decoded, raw.size());
  }
  return absl::OkStatus();
}

}  // namespace metal::stream
