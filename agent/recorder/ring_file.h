// The recorder's file: a header of 4096 bytes that is written once, then frames in a circle. No
// pointer says where the circle ends, so there is none to tear: a reader looks for whole frames and
// goes by their sequence. A frame never goes over the file's end. What was half written when the
// power went, or is half overwritten, fails its CRC and is skipped.
// Threading: RingWriter belongs to one thread; ReadRing may run beside it. All blocks on the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"
#include "agent/base/units.h"
#include "agent/recorder/record.h"

namespace metal::recorder {

inline constexpr uint64_t kRingHeader = 4096;
inline constexpr uint64_t kRingLeast = kRingHeader + 4 * kFrameMost;

class RingWriter {
 public:
  // Opens the ring at `path`, or makes one of `size` bytes (≥ kRingLeast, taken from the disk at
  // once). A file of another size, or that is no ring, is renamed to <path>.old, over an earlier
  // one. RESOURCE_EXHAUSTED when the disk is full; other errors as the system calls give them.
  static absl::StatusOr<RingWriter> Open(const std::string& path, base::ByteCount size);

  // Seals and writes frames of EncodeFrame, one after another, over the oldest ones. After an error
  // the ring is still whole; what of these frames is in it is not known. Durable after Sync.
  absl::Status Append(std::span<std::byte> frames);
  absl::Status Sync();
  uint64_t next_sequence() const { return next_sequence_; }

 private:
  absl::Status Create(base::ByteCount size);
  absl::Status FindEnd();
  absl::Status Write(std::span<const std::byte> bytes);

  std::string path_;
  base::UniqueFd fd_;
  uint64_t size_ = 0, id_ = 0;
  uint64_t position_ = kRingHeader;  // of the next frame
  uint64_t next_sequence_ = 1;
};

// Calls `visit` for each whole record, oldest first, until it answers false. Memory: about 1 MiB.
// NOT_FOUND: no file; DATA_LOSS: it is no ring.
absl::Status ReadRing(const std::string& path, const std::function<bool(const Record&)>& visit);

}  // namespace metal::recorder
