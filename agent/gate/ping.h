// Whether a server accepts connections, without logging in. Threading: any thread; blocks.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/gate/door_record.h"

namespace metal::gate {

// OK when the server accepts connections. UNAVAILABLE: it starts up, shuts down or does not answer.
using ServerPing = std::function<absl::Status(const Target& target)>;

// Over libpq; two seconds at most. `user` is who is named to the server, which asks for no password
// before it has said whether it accepts connections.
ServerPing LibpqPing(std::string user);

}  // namespace metal::gate
