// Giving root away: directories for the user that the agent runs as, then that user's identity for
// good. Threading: main's thread, before any other thread starts.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::base {

struct OsUser {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
};
// NOT_FOUND when there is no such user.
absl::StatusOr<OsUser> FindOsUser(const std::string& name);
// Name of the user that this process runs as; its number as text when it has none.
std::string CurrentOsUser();

// Creates the directory (and its parents) when missing, owned by `user`. An existing one is left as
// it is.
absl::Status ProvideDirectory(const std::string& path, const OsUser& user, mode_t mode);

// Protects this process (and the postmaster that it starts) from the OOM killer. REQUIRES: root.
absl::Status LowerOomScore(int score);
// This process's own adjustment, −1000 (never killed) to 1000.
absl::StatusOr<int> OomScore();

// Takes the user's groups, gid and uid, irrevocably. FAILED_PRECONDITION for root: PostgreSQL
// refuses to run as root. REQUIRES: root.
absl::Status BecomeUser(const OsUser& user);

}  // namespace metal::base
