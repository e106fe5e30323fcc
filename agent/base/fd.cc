#include "agent/base/fd.h"

#include <unistd.h>

#include <cerrno>

#include "agent/base/status.h"

namespace metal::base {

void UniqueFd::Reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

absl::Status UniqueFd::Close() {
  if (fd_ < 0) return absl::OkStatus();
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
    return ErrnoStatus(errno, "close", "file");
  }
  return absl::OkStatus();
}

}  // namespace metal::base
