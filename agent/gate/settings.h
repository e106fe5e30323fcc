// What PgBouncer is told in files: pgbouncer.ini and the list of users. agent/docs/adr/ says why
// each value is what it is. Source: pgbouncer(5). Threading: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/gate/door_record.h"

namespace metal::gate {

// One door: one PgBouncer.
struct DoorSettings {
  std::string directory;    // its files; also of its unix socket
  std::string listen_host;  // address to listen on; "*": all
  int listen_port = 0;
  std::string auth_type = "scram-sha-256";
  std::string auth_file;
  std::string pool_mode = "transaction";
  std::string client_tls = "disable";  // as client_tls_sslmode
  std::string certificate, key;
  std::string server_tls = "prefer";  // as server_tls_sslmode
  std::string server_ca;              // empty: none
  int max_client_conn = 1000;
  int default_pool_size = 20;  // server connections for each pair of user and database
  absl::Duration hold_max = absl::Seconds(30);

  std::string ini_path() const { return directory + "/pgbouncer.ini"; }
  std::string pid_path() const { return directory + "/pgbouncer.pid"; }
  std::string log_path() const { return directory + "/pgbouncer.log"; }
};

// How long a client waits for a server: through every hold, or, at a door that is closed, hardly.
enum class Patience { kThroughHolds, kRefuse };

// The whole file. REQUIRES: CheckTarget(target).ok(), and no line breaks in the settings.
std::string RenderIni(const DoorSettings& settings, const Target& target, Patience patience);

// The lines that a running PgBouncer cannot take over: other ones need another process.
std::string LinesOfStart(std::string_view ini);

// A role that may log in.
struct RoleSecret {
  std::string name;
  std::string secret;  // as in pg_authid: "SCRAM-SHA-256$…"; empty: none
};
// The file of users. Roles without a SCRAM secret are left out unless `without_password`; so are
// names that the file cannot hold (control characters, more than 63 bytes).
std::string RenderUsers(const std::vector<RoleSecret>& roles, bool without_password);

// "host:port", "[::1]:6432", "*:6432". INVALID_ARGUMENT otherwise, or with port 0.
absl::StatusOr<Target> ParseListen(std::string_view text);

}  // namespace metal::gate
