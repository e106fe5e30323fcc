// What this node's server should be doing, kept in state_dir/postgres.desired: after an agent
// restart a server that should run is adopted or, when it is dead, started again; one that was
// stopped is left alone. Threading: pure functions; Load and Store block on the state disk.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace metal::pg {

enum class StartRole { kStandby, kPrimary };

struct DesiredState {
  bool running = false;
  bool quarantined = false;  // restarted too often; only a caller's Start ends it
  StartRole role = StartRole::kStandby;
  friend bool operator==(const DesiredState&, const DesiredState&) = default;
};

std::string RenderDesiredState(const DesiredState& state);
// INVALID_ARGUMENT on anything that RenderDesiredState did not make.
absl::StatusOr<DesiredState> ParseDesiredState(std::string_view text);

// An absent file is {stopped, standby}.
absl::StatusOr<DesiredState> LoadDesiredState(const std::string& state_dir);
absl::Status StoreDesiredState(const std::string& state_dir, const DesiredState& state);

}  // namespace metal::pg
