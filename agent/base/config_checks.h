// Checks of a parsed configuration that span several options, and defaults that come from this
// machine. Internal to config.cc. Threading: pure but for ResolveMachineDefaults, which reads the
// host name and /usr/lib/postgresql.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "agent/base/config.h"

namespace metal::base {

inline constexpr std::string_view kTlsRoles = "viewer, operator, orchestrator, peer";

// True when `value` is one of the names in "a, b, c".
bool IsOneOf(std::string_view value, std::string_view allowed);

// True for "host:port" and "[v6]:port" with a port from 0 to 65535.
bool IsListenAddress(std::string_view text);

// INVALID_ARGUMENT "<option>: <what is wrong>. HINT: …", without the file's name.
absl::Status CheckTogether(const AgentConfig& config);

// Fills node_id, pg_bin_dir and wal_helper when they are empty.
void ResolveMachineDefaults(AgentConfig& config);

}  // namespace metal::base
