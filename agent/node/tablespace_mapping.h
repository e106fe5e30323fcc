// Where tablespaces go in a copy, as callers say it. Threading: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace metal::node {

// Path by OID, from texts. INVALID_ARGUMENT for what is no OID or no absolute path.
absl::StatusOr<std::map<uint32_t, std::string>> ParseTablespaceMapping(
    const std::map<std::string, std::string>& mapping);

}  // namespace metal::node
