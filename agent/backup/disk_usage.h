// How much space removing a directory gives back. Threading: blocks on the disk for metadata.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"

namespace metal::backup {

// Adds the allocated bytes of everything below `directory`, by device (st_dev). Links are not
// followed; what vanishes meanwhile, or an absent directory, counts nothing.
absl::Status AddDiskUsage(const std::string& directory, std::map<uint64_t, uint64_t>& bytes);

}  // namespace metal::backup
