// How the memory of one backup is shared out, so that it is bounded whatever the codec: the packs'
// staging buffers, the state of each codec thread's encoder, and frame buffers with the rest.
// Threading: pure functions.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "agent/backup/copy_pipeline.h"

namespace metal::backup {

struct MemoryPlan {
  size_t threads = 1;  // codec threads, at most options.threads
  size_t frames = 3;   // frame buffers
  size_t bytes = 0;    // of all of it, at most options.memory
  size_t least = 0;    // bytes of one thread and as few frames as it can work with
};

// Encoded frames take at most this much, rounded for O_DIRECT.
size_t EncodedFrameSize();

// Fewer codec threads when not all of them have room. INVALID_ARGUMENT for a bad codec level;
// RESOURCE_EXHAUSTED when not even one thread has room: backup.memory is too small for the level.
absl::StatusOr<MemoryPlan> PlanMemory(const CopyOptions& options);

}  // namespace metal::backup
