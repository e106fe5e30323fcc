// Parses postmaster.pid, the lock file that a postmaster keeps in its data directory. Never written
// or removed by us. Source: src/include/utils/pidfile.h (PostgreSQL 13–18): pid, data directory,
// start time, port, socket directory, listen address, shared memory key, status. The server adds
// the later lines one by one while it starts. Threading: pure functions; ReadPostmasterPid blocks
// on the data disk.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::pg {

enum class PostmasterStatus {
  kUnknown,  // not written yet, or a word that we do not know
  kStarting,
  kStopping,
  kReady,    // accepts connections (a hot standby too)
  kStandby,  // up, but a standby without hot_standby: accepts none
};

struct PostmasterPid {
  pid_t pid = 0;             // always positive
  bool single_user = false;  // the file holds a negative pid: `postgres --single`
  std::string data_directory;
  absl::Time start_time = absl::InfinitePast();  // resolution 1 s
  int port = 0;                                  // 0: not written yet
  std::string socket_dir;
  std::string listen_address;
  PostmasterStatus status = PostmasterStatus::kUnknown;
};

// INVALID_ARGUMENT when the first line is no pid. Missing later lines keep their defaults.
absl::StatusOr<PostmasterPid> ParsePostmasterPid(std::string_view text);

// nullopt when the file does not exist; an empty file (being created) is nullopt too.
absl::StatusOr<std::optional<PostmasterPid>> ReadPostmasterPid(const std::string& data_dir);

}  // namespace metal::pg
