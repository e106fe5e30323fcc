// The devices under a database. Threading: pure but for a stat of each directory, which may hang
// with its disk.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/pg/data_directory.h"

namespace metal::node {

// Of the data directory, and of pg_wal and the tablespaces where these are known. Each device once,
// with the first directory on it; what cannot be looked at is left out.
std::vector<std::pair<std::string, dev_t>> DevicesOf(
    const std::string& data_dir, const absl::StatusOr<pg::DataDirectory>& directory);

}  // namespace metal::node
