// What the threads of a CloneReceiver hand to each other. Threading: a job belongs to one thread at
// a time; a link to its thread, but for `channel`.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/backup/clone_protocol.h"
#include "agent/backup/unpack_job.h"
#include "agent/base/thread.h"
#include "agent/stream/codec.h"
#include "agent/transfer/channel.h"
#include "agent/uring/buffer_pool.h"

namespace metal::backup {

// A frame buffer, and what of it is still to be written.
struct CloneJob {
  CloneJob(std::span<std::byte> raw, std::vector<std::unique_ptr<stream::Decoder>>& decoders)
      : frame(raw, {}, decoders, -1) {}
  UnpackJob frame;
  CloneData data;
};

// A data connection.
struct CloneLink {
  size_t index = 0;
  uring::AlignedBuffer encoded;          // made when the source compresses
  transfer::Channel* channel = nullptr;  // while it may be interrupted; guarded by the receiver
  bool refused = false;                  // the source ended the clone
  base::Thread thread;
};

// DATA_LOSS that says what the source sent wrong.
absl::Status CloneDamage(const std::string& what);

// Makes the directories that `path` needs below the open one, with mode 0700.
absl::Status MakeParents(int directory, const std::string& path);

}  // namespace metal::backup
