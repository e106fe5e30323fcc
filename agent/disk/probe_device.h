// ProbeDevice: the seam between the prober and a real file: prepare it, start one 4 KiB transfer,
// collect completions.
// Threading: all calls come from the prober's thread (Open, Start and the destructor may hang with
// the device, Wait may not); Wake alone comes from other threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace metal::disk {

inline constexpr uint32_t kProbeBlockSize = 4096;
inline constexpr uint32_t kProbeSlots = 8;          // most transfers outstanding
inline constexpr uint32_t kProbeFileBlocks = 4096;  // 16 MiB

struct ProbeCompletion {
  uint32_t slot = 0;
  int32_t result = 0;  // bytes or −errno
};

class ProbeDevice {
 public:
  virtual ~ProbeDevice() = default;
  // UNIMPLEMENTED: this place cannot be probed, and why. DATA_LOSS: the device answered with an
  // error. FAILED_PRECONDITION: the filesystem is read-only. Any other error: try again later.
  // Calls `before_step` before each call that may hang.
  virtual absl::Status Open(const std::function<void()>& before_step) = 0;
  // The slot's buffer of kProbeBlockSize bytes. REQUIRES: Open succeeded; no transfer of the slot
  // is outstanding.
  virtual std::span<std::byte> Buffer(uint32_t slot) = 0;
  // Starts a transfer of one block between the slot's buffer and block number `block`.
  // The buffer belongs to the device until the slot's completion.
  virtual void StartRead(uint32_t slot, uint32_t block) = 0;
  virtual void StartWrite(uint32_t slot, uint32_t block) = 0;
  // Appends completions; waits up to `timeout` for the first one or a Wake.
  virtual void Wait(absl::Duration timeout, std::vector<ProbeCompletion>& completions) = 0;
  // Ends the present or the next Wait. Thread-safe.
  virtual void Wake() = 0;
  // Whether another program changed the file since Open so that it is shorter, or has holes. A
  // local file system answers from memory.
  virtual bool WasCut() = 0;
  // Closes what Open opened, for another Open. REQUIRES: nothing is outstanding.
  virtual void Close() = 0;
};

enum class ProbeIo {
  kRing,         // one io_uring ring; where the kernel has none, kSynchronous
  kSynchronous,  // pread and pwrite inside Start, one at a time
};

// The file at `path`, made by the first Open: 16 MiB, every block written and synced, mode 0600,
// locked against a second prober. Reads and writes use O_DIRECT, writes O_DSYNC too.
std::unique_ptr<ProbeDevice> MakeFileProbeDevice(const std::string& path,
                                                 ProbeIo io = ProbeIo::kRing);

}  // namespace metal::disk
