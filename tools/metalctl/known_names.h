// Names that only the agent knows, for completion. Threading: one thread.
#pragma once

#include <string>
#include <vector>

#include "tools/metalctl/client.h"

namespace metal::ctl {

// Names of kind "backup" (with "latest"), "operation" or "disk"; none when the agent does not
// answer within `patience`.
std::vector<std::string> KnownNames(const ClientOptions& options, const std::string& kind,
                                    absl::Duration patience = absl::Milliseconds(300));

}  // namespace metal::ctl
