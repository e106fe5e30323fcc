// Pages of a list of backups. A token names the last backup of the page before: the next page
// begins behind it, in whatever order the list is. Threading: pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/backup/catalog.h"

namespace metal::rpc {

struct BackupPage {
  std::span<const backup::BackupInfo> backups;
  std::string next_token;  // empty: the last page
};

// `size`: 0 to 1000 backups, 0 means 100. INVALID_ARGUMENT: another size, or a token of a backup
// that is not in the list (any more).
absl::StatusOr<BackupPage> PageOfBackups(std::span<const backup::BackupInfo> all, int size,
                                         std::string_view token);

}  // namespace metal::rpc
