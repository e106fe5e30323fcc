// One zstd frame for each of ours, with the content size and without zstd's checksum: the manifest
// has a better one.
#define ZSTD_STATIC_LINKING_ONLY  // for the size of a context; Debian exports it
#include <zstd.h>

#include <utility>
#include <vector>

#include "agent/base/check.h"
#include "agent/base/status.h"
#include "agent/stream/codec_variants.h"

namespace metal::stream {
namespace {

constexpr size_t kFrameMax = 1 << 20;  // of raw bytes: codec.h
constexpr int kMinLevel = -7;
constexpr int kMaxLevel = 19;  // the levels above need far more memory in whoever restores

// Level 1 with a match table of 16 KiB, which stays in the first-level cache also when two threads
// share it. Against zstd's own 64 KiB that took 12 to 15 % less CPU on table and index pages, 2 to
// 5 % less on pgbench's, and cost 0.1 to 1.2 % of the ratio (bench/micro/codec_speed).
constexpr int kFastLevel = 1;
constexpr int kFastHashLog = 12;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};
using CompressContext = std::unique_ptr<ZSTD_CCtx, FreeContext>;

// The context is reused from frame to frame: a new one would allocate its tables each time.
class ZstdEncoder final : public Encoder {
 public:
  ZstdEncoder(CompressContext context, int level) : context_(std::move(context)), level_(level) {}

  CodecKind kind() const override { return CodecKind::kZstd; }
  size_t state_bytes() const override {
    return ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level_, kFrameMax, 0));
  }
  absl::StatusOr<size_t> Encode(std::span<const std::byte> raw, std::span<std::byte> out) override {
    METAL_CHECK(out.size() >= ZstdBound(raw.size()));
    const size_t written =
        ZSTD_compress2(context_.get(), out.data(), out.size(), raw.data(), raw.size());
    if (ZSTD_isError(written)) {
      return base::Error(absl::StatusCode::kInternal, "zstd encoder failed: {}",
                         ZSTD_getErrorName(written));
    }
    return written;
  }

 private:
  CompressContext context_;
  const int level_;
};

}  // namespace

size_t ZstdBound(size_t raw_size) { return ZSTD_compressBound(raw_size); }

absl::StatusOr<std::unique_ptr<Encoder>> MakeZstdEncoder(int level) {
  if (level < kMinLevel || level > kMaxLevel) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "zstd level {} is outside {} to {}. HINT: 1 suits local disks", level,
                       kMinLevel, kMaxLevel);
  }
  CompressContext context(ZSTD_createCCtx());
  METAL_CHECK(context != nullptr);
  std::vector<std::pair<ZSTD_cParameter, int>> parameters = {
      {ZSTD_c_compressionLevel, level}, {ZSTD_c_contentSizeFlag, 1}, {ZSTD_c_checksumFlag, 0}};
  if (level == kFastLevel) parameters.emplace_back(ZSTD_c_hashLog, kFastHashLog);
  for (const auto& [parameter, value] : parameters) {
    const size_t result = ZSTD_CCtx_setParameter(context.get(), parameter, value);
    if (ZSTD_isError(result)) {
      return base::Error(absl::StatusCode::kInternal, "set up zstd level {}: {}", level,
                         ZSTD_getErrorName(result));
    }
  }
  return std::make_unique<ZstdEncoder>(std::move(context), level);
}

struct ZstdDecoder::Context {
  ZSTD_DCtx* zstd = ZSTD_createDCtx();
  ~Context() { ZSTD_freeDCtx(zstd); }
};

ZstdDecoder::ZstdDecoder() : context_(std::make_unique<Context>()) {
  METAL_CHECK(context_->zstd != nullptr);
}
ZstdDecoder::~ZstdDecoder() = default;

absl::Status ZstdDecoder::Decode(std::span<const std::byte> encoded, std::span<std::byte> raw) {
  // Exactly one frame: zstd itself would also take several, or none.
  const size_t frame_size = ZSTD_findFrameCompressedSize(encoded.data(), encoded.size());
  if (ZSTD_isError(frame_size) || frame_size != encoded.size()) {
    return base::Error(absl::StatusCode::kDataLoss, "zstd frame of {} bytes is damaged: {}",
                       encoded.size(),
                       ZSTD_isError(frame_size) ? ZSTD_getErrorName(frame_size) : "wrong length");
  }
  if (ZSTD_getFrameContentSize(encoded.data(), encoded.size()) != raw.size()) {
    return base::Error(absl::StatusCode::kDataLoss,
                       "zstd frame does not decode to {} bytes by its own header", raw.size());
  }
  const size_t decoded =
      ZSTD_decompressDCtx(context_->zstd, raw.data(), raw.size(), encoded.data(), encoded.size());
  if (ZSTD_isError(decoded)) {
    return base::Error(absl::StatusCode::kDataLoss, "zstd frame is damaged: {}",
                       ZSTD_getErrorName(decoded));
  }
  if (decoded != raw.size()) {
    return base::Error(absl::StatusCode::kDataLoss, "zstd frame decodes to {} bytes instead of {}",
                       decoded, raw.size());
  }
  return absl::OkStatus();
}

}  // namespace metal::stream
