// Asks Postgres's own programs about settings while no server has to run: what exists, and whether
// a value is accepted. Threading: any thread. Runs `postgres` for a fraction of a second.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/pg/install.h"
#include "agent/pg/settings.h"

namespace metal::pg {

// A row of pg_settings, or of `postgres --describe-config` while the server is down.
struct SettingInfo {
  std::string name;
  std::string value;  // in force (live), or from the files (down)
  std::string unit;
  std::string context;  // "internal", "postmaster", "sighup", "superuser-backend", "backend",
                        // "superuser", "user"
  std::string type;     // "bool", "integer", "real", "string", "enum"
  std::string boot_value, min_value, max_value;
  std::vector<std::string> enum_values;
  std::string source, source_file;  // live only
  int source_line = 0;
  bool pending_restart = false;
  std::string description;
};

// Rows of `postgres --describe-config` (tab separated; settings that may not stand in a file are
// missing). Pure.
std::vector<SettingInfo> ParseDescribeConfig(std::string_view output);
absl::StatusOr<std::vector<SettingInfo>> DescribeConfig(Install& install);

// "invalid value for parameter \"work_mem\": \"x\"; HINT: …" from postgres's standard error: its
// first error line with DETAIL and HINT. Pure.
std::string PostgresReason(std::string_view standard_error);

// Lets postgres read the directory's configuration with `settings` on top, in a scratch directory,
// so that a running server is not touched; files of the user in the data directory (certificates)
// are seen through links. This covers what depends on several settings and the libraries that are
// preloaded, and whether the machine can map the shared memory (memory_check.h); before version 15,
// of these only the reserved connections and whether the libraries exist. INVALID_ARGUMENT
// (SETTING_REJECTED, metadata setting and postgres_message) with Postgres's reason.
absl::Status CheckSettings(Install& install, const std::string& data_dir,
                           const std::string& scratch_parent, const SettingMap& settings);

// Value of one setting as the configuration files give it (`postgres -C`). NOT_FOUND for an unknown
// name.
absl::StatusOr<std::string> ReadConfiguredValue(Install& install, const std::string& data_dir,
                                                const std::string& name);

}  // namespace metal::pg
