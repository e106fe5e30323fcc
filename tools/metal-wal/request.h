// One request to the agent and its answer. Single-threaded; blocks up to the deadline.
#pragma once

#include <time.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "agent/backup/wal_protocol.h"
#include "tools/metal-wal/options.h"

namespace metal::wal {

// Owns a descriptor.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File() = default;
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int fd() const { return fd_; }
  bool Close() { return close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_ = -1;
};

struct Answer {
  ExitCode code = kTryAgain;
  std::string message = {};
  File prefetched = File();  // fetch: open when this file was filled instead of the given one
};

// What went wrong in a system call, from errno.
Answer Errno(ExitCode code, const char* what, const std::string& object, const char* hint);

// Seconds on a clock that only goes forward.
time_t Now();

// One connection: the request with its descriptors, the response. `deadline` as Now.
Answer Ask(const Options& options, const backup::WalRequest& request,
           const std::vector<int>& descriptors, time_t deadline);

}  // namespace metal::wal
