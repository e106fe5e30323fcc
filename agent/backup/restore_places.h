// The directories that a restore writes, and those that it must keep out of. Two of them may meet
// through links and bind mounts, so they are compared by resolved path and by device and inode of
// every parent that exists. Threading: pure functions that read the file system.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::backup {

struct RestorePlace {
  std::string what;  // for messages: "tablespace 16400 at", "the repository"
  std::string path;  // absolute; need not exist
};

// FAILED_PRECONDITION with reason RESTORE_TARGET about the target directory.
absl::Status RestoreTargetError(const std::string& target, std::string_view why);

// RestoreTargetError that names both places when two of `written` are the same directory or one
// lies inside the other, or when one of `written` is, contains or lies inside one of `kept_out`.
// Places without a path are left out. Changes nothing. A place that cannot be looked at is an error
// too, but for one of `kept_out` on a disk that fails, which is compared by its text.
absl::Status CheckPlacesApart(const std::string& target, const std::vector<RestorePlace>& written,
                              const std::vector<RestorePlace>& kept_out);

// True when both paths lead to one directory, or would once they are made. `other` on a disk that
// fails is compared by its text.
absl::StatusOr<bool> IsSamePlace(const std::string& path, const std::string& other);

// True when a part of it is "..": behind a link, where that leads cannot be told from the text.
bool LeadsUp(const std::string& path);

// The path itself or its nearest parent that exists.
absl::StatusOr<std::string> ExistingAncestor(std::string path);

}  // namespace metal::backup
