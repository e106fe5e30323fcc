#include "agent/gate/ping.h"

#include <libpq-fe.h>

#include <utility>

#include "agent/base/status.h"

namespace metal::gate {

ServerPing LibpqPing(std::string user) {
  return [user = std::move(user)](const Target& target) -> absl::Status {
    const std::string port = fmt::format("{}", target.port);
    const char* const names[] = {
        "host", "port", "user", "dbname", "sslmode", "connect_timeout", "application_name",
        nullptr};
    const char* const values[] = {target.host.c_str(), port.c_str(), user.c_str(),
                                  "postgres",          "prefer",     "2",
                                  "metal-gate",        nullptr};
    switch (PQpingParams(names, values, 0)) {
      case PQPING_OK:
        return absl::OkStatus();
      case PQPING_REJECT:
        return base::Error(absl::StatusCode::kUnavailable,
                           "the server at {} starts up or shuts down", target.ToString());
      default:
        return base::Error(absl::StatusCode::kUnavailable, "no server answers at {}",
                           target.ToString());
    }
  };
}

}  // namespace metal::gate
