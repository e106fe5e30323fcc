// The agent's version, one place.
#pragma once

namespace metal {

inline constexpr const char* kAgentVersion = "0.1.0";

}  // namespace metal
