// The seam for bulk file I/O: io_uring, a pool of pread/pwrite threads, or plain pread/pwrite in
// the caller's thread. All three run the same requests; the caller is one state machine that
// submits and reaps.
// Threading: an engine belongs to the thread that calls it; only Wake() may be
// called from other threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::uring {

enum class IoOp : uint8_t { kRead, kWrite };

// Owned by the caller and left alone by it from Submit until the request comes back from Reap.
struct IoRequest {
  IoOp op = IoOp::kRead;
  int fd = -1;
  std::byte* buffer = nullptr;  // aligned to 4096 when fd is O_DIRECT
  uint32_t length = 0;
  uint64_t offset = 0;
  void* context = nullptr;  // the caller's
  int32_t result = 0;       // filled in: bytes transferred (may be short) or −errno
  uint8_t retries = 0;      // the engine's own
};

enum class EngineKind { kAuto, kIoUring, kThreads, kPread };

class IoEngine {
 public:
  // Waits for requests that have begun; others may be dropped. REQUIRES: in the owner's thread, or
  // nothing in flight.
  virtual ~IoEngine() = default;
  virtual std::string_view name() const = 0;  // "io_uring", "threads", "pread"
  virtual uint32_t depth() const = 0;         // most requests in flight
  virtual uint32_t in_flight() const = 0;
  // Queues a request; it may start at once or at the next Reap. REQUIRES: in_flight() < depth().
  virtual void Submit(IoRequest* request) = 0;
  // Starts what Submit has queued, without waiting: for a caller that computes for long before its
  // next Reap.
  virtual void Flush() {}
  // Appends finished requests to `done`; waits up to `timeout` for the first one or a Wake().
  // Errors of a request are in its result; an error here means the engine itself is broken.
  // EINTR/EAGAIN are retried inside; short transfers are not.
  virtual absl::Status Reap(std::vector<IoRequest*>& done, absl::Duration timeout) = 0;
  // Makes the current or next Reap return early. Thread-safe, async-signal-safe.
  virtual void Wake() = 0;
};

inline constexpr uint32_t kMaxDepth = 4096;

struct EngineChoice {
  std::unique_ptr<IoEngine> engine;
  // Why this one: "io_uring: Operation not permitted (kernel.io_uring_disabled is 2); using
  // threads".
  std::string reason;
};
// kAuto tries io_uring → threads → pread; a named kind that is not available is an error with a
// HINT. INVALID_ARGUMENT when depth is not from 1 to kMaxDepth. The engine belongs to the first
// thread that uses it, which need not be the one that makes it.
absl::StatusOr<EngineChoice> MakeEngine(EngineKind kind, uint32_t depth);
// INVALID_ARGUMENT for an unknown name; names: auto, io_uring, threads, pread.
absl::StatusOr<EngineKind> ParseEngineKind(std::string_view name);

}  // namespace metal::uring
