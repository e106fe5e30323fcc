#include "agent/backup/memory_plan.h"

#include <algorithm>

#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr size_t kFramesMin = 3;  // one is read, one encoded, one written

// Enough frames to keep the reads going while each codec thread has one in work and one waiting.
size_t FramesWanted(const CopyOptions& options, size_t threads) {
  return options.queue_depth * kReadSize / store::kFrameRawMax + 3 * threads + 2;
}

}  // namespace

size_t EncodedFrameSize() {
  constexpr size_t kAlign = uring::kDirectIoAlignment;
  return (stream::EncodedBound(store::kFrameRawMax) + kAlign - 1) / kAlign * kAlign;
}

absl::StatusOr<MemoryPlan> PlanMemory(const CopyOptions& options) {
  METAL_ASSIGN_OR_RETURN(const auto encoder, stream::MakeEncoder(options.codec, options.level));
  const size_t state = encoder->state_bytes();
  const size_t frame = store::kFrameRawMax + EncodedFrameSize();
  const size_t staging = options.packs.buffer_count * options.packs.buffer_size;
  const size_t least = staging + state + kFramesMin * frame;
  const size_t memory = static_cast<size_t>(options.memory.value);
  for (size_t threads = std::max<size_t>(options.threads, 1); threads > 0; --threads) {
    const size_t fixed = staging + threads * state;
    const size_t frames_min = std::max(kFramesMin, threads + 1);
    if (memory < fixed + frames_min * frame) continue;
    MemoryPlan plan;
    plan.threads = threads;
    plan.frames = std::min(FramesWanted(options, threads), (memory - fixed) / frame);
    plan.bytes = fixed + plan.frames * frame;
    plan.least = least;
    return plan;
  }
  return base::Error(absl::StatusCode::kResourceExhausted,
                     "backup.memory is {}, one thread of {} level {} needs {}. HINT: raise "
                     "backup.memory or choose a lower level",
                     options.memory.ToString(), stream::CodecName(options.codec), options.level,
                     base::ByteCount{least}.ToString());
}

}  // namespace metal::backup
