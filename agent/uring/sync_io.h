// What all engines agree on: which results are tried again, and how a request runs in the calling
// thread. Threading: pure functions.
#pragma once

#include <cerrno>
#include <cstdint>

#include "agent/uring/io_engine.h"

namespace metal::uring {

// How often a request that ends in EINTR or EAGAIN is tried again before the caller gets to see it.
inline constexpr uint8_t kMaxRetries = 64;

inline bool IsTransient(int32_t result) { return result == -EINTR || result == -EAGAIN; }

// pread(2) or pwrite(2): bytes transferred (may be short) or −errno. EINTR and EAGAIN are tried
// again.
int32_t PerformNow(const IoRequest& request);

}  // namespace metal::uring
