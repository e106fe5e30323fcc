// Recorder: the flight recorder. Put copies a record into memory and returns; one thread of its own
// writes the ring. When the ring's disk hangs, fails or is full, records that find no room are
// dropped and counted, a record says how many once it works again, and nobody else notices.
// Durability: a record is in the kernel's hands within moments, so it survives the agent's death,
// and on the disk after at most `sync_interval`.
// Threading: thread-safe. Put holds a mutex for a copy of at most 8 KiB and never allocates. The
// thread may hang with its disk; it is then left behind, with all that it uses.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/thread.h"
#include "agent/base/units.h"
#include "agent/recorder/record.h"

namespace metal::recorder {

struct RecorderOptions {
  std::string path;  // of the ring
  base::ByteCount size{64 * base::kMiB};
  size_t queue_bytes = 512 * 1024;  // what may wait for the disk
  absl::Duration sync_interval = absl::Seconds(1);
  absl::Duration retry_after = absl::Seconds(10);  // after the disk failed
};

struct RecorderState {
  uint64_t put = 0;       // records given, dropped ones too
  uint64_t dropped = 0;   // found no room, or were lost with a failed write
  uint64_t written = 0;   // handed to the kernel
  std::string error;      // why the ring cannot be written; empty: it can, or is being opened
  absl::Duration behind;  // age of the oldest record that waits; zero: none does
};

class Recorder {
 public:
  // `clock` outlives the process.
  Recorder(RecorderOptions options, base::Clock& clock);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  void Put(const Entry& entry);

  RecorderState State() const;
  // Records that are not written yet, oldest first; their sequence is 0.
  std::vector<Record> Waiting() const;
  // Waits until what was put so far is written or lost; false on timeout.
  bool Flush(absl::Duration timeout);
  const std::string& path() const;

 private:
  class Core;
  const std::shared_ptr<Core> core_;
  base::Thread thread_;
};

}  // namespace metal::recorder
