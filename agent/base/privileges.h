// Giving root away: directories for the user that the agent runs as, then that user's identity for
// good. Threading: main's thread, before any other thread starts.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

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

// The same, mode 0750, on a disk that may hang: another process of this program looks, with the
// arguments kProvideDirectory PATH UID GID, and is left behind when it does not come back. (A
// thread would not do: one that hangs in the kernel keeps its process from changing its user.)
// DEADLINE_EXCEEDED: the disk does not answer. Blocks for `patience` and a second at most.
inline constexpr std::string_view kProvideDirectory = "--provide-directory";
absl::Status ProvideDirectoryOnDisk(const std::string& path, const OsUser& user,
                                    absl::Duration patience);
// What that process does; answers its exit code.
int RunProvideDirectory(const std::string& path, std::string_view uid, std::string_view gid);

// Protects this process (and the postmaster that it starts) from the OOM killer. REQUIRES: root.
absl::Status LowerOomScore(int score);
// This process's own adjustment, −1000 (never killed) to 1000.
absl::StatusOr<int> OomScore();

// Takes the user's groups, gid and uid, irrevocably. FAILED_PRECONDITION for root: PostgreSQL
// refuses to run as root. REQUIRES: root.
absl::Status BecomeUser(const OsUser& user);

}  // namespace metal::base
