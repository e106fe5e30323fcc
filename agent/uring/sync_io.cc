#include "agent/uring/sync_io.h"

#include <unistd.h>

namespace metal::uring {

int32_t PerformNow(const IoRequest& request) {
  const auto offset = static_cast<off_t>(request.offset);
  for (uint8_t retries = 0;; ++retries) {
    const ssize_t done = request.op == IoOp::kRead
                             ? pread(request.fd, request.buffer, request.length, offset)
                             : pwrite(request.fd, request.buffer, request.length, offset);
    const int32_t result = done < 0 ? -errno : static_cast<int32_t>(done);
    if (!IsTransient(result) || retries == kMaxRetries) return result;
  }
}

}  // namespace metal::uring
