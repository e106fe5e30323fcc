// The listening end of the WAL socket. Threading: any thread; blocks on nothing but the file
// system.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "agent/base/fd.h"

namespace metal::backup {

// A non-blocking unix stream socket that listens at `path`, mode 0600. Makes its directory with
// mode 0700 when missing, and replaces a socket file that nobody serves. ALREADY_EXISTS: somebody
// does. FAILED_PRECONDITION: everybody may write in the directory, or `path` is no socket.
// INVALID_ARGUMENT: too long.
absl::StatusOr<base::UniqueFd> ListenForWal(const std::string& path);

}  // namespace metal::backup
