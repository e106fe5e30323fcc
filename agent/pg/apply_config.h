// ConfigEditor: validates and applies settings, reloads the configuration, reads what is in force.
// A setting that Postgres would reject is refused with Postgres's own reason and nothing is changed.
// Threading: thread-safe; one change at a time (a second waits). Blocks on the data disk, subprocesses and SQL.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/pg/install.h"
#include "agent/pg/session.h"
#include "agent/pg/settings.h"

namespace metal::pg {

// A row of pg_settings, or of `postgres --describe-config` while the server is down.
struct SettingInfo {
  std::string name;
  std::string value;  // in force (live), or from the files (down)
  std::string unit;
  std::string context;  // "internal", "postmaster", "sighup", "superuser-backend", "backend", "superuser", "user"
  std::string type;     // "bool", "integer", "real", "string", "enum"
  std::string boot_value, min_value, max_value;
  std::vector<std::string> enum_values;
  std::string source, source_file;  // live only
  int source_line = 0;
  bool pending_restart = false;
  std::string description;
};

struct SettingChange {
  std::string name;
  std::optional<std::string> old_value;  // in metal.conf; nullopt: was not set there
  std::optional<std::string> new_value;  // nullopt: removed
  std::string context;
  bool restart_required = false;
  friend bool operator==(const SettingChange&, const SettingChange&) = default;
};

struct ApplyConfigRequest {
  std::map<std::string, std::optional<std::string>> settings;  // nullopt: remove, back to the user's files or the default
  bool validate_only = false;
};

struct ReloadResult {
  absl::Time loaded;                         // pg_conf_load_time
  std::vector<std::string> pending_restart;  // settings whose new value waits for a restart
};

struct ApplyConfigResult {
  std::vector<SettingChange> changes;  // only those that differ; sorted by name
  bool reloaded = false;               // false: validate_only, no change, or the server is down
  ReloadResult reload;
};

class ConfigEditor {
 public:
  struct Options {
    std::string data_dir;
    std::string scratch_dir;  // a private directory is made here for each check; usually the state directory
    AgentSettings agent;
    absl::Duration timeout = absl::Seconds(30);
  };
  // `install`, `clock` outlive this. `connect` gives a session, or an error while the server is down.
  ConfigEditor(Options options, Install& install, SessionFactory connect, base::Clock& clock);

  // INVALID_ARGUMENT (reason SETTING_REJECTED, metadata setting, postgres_message): unknown name, bad value, cannot be
  // changed. FAILED_PRECONDITION (SETTING_OWNED): the agent's own. FAILED_PRECONDITION (SETTING_OVERRIDDEN): another file
  // sets it after metal.conf. On an error metal.conf is as before.
  absl::StatusOr<ApplyConfigResult> Apply(const ApplyConfigRequest& request);

  // Checks the files (pg_file_settings) before the signal and waits until pg_conf_load_time moved. INVALID_ARGUMENT with
  // file and line when a file has an error: nothing is signalled. UNAVAILABLE when the server is down.
  absl::StatusOr<ReloadResult> Reload();

  // All settings whose name matches one of `names` (all when empty), sorted by name.
  absl::StatusOr<std::vector<SettingInfo>> List(const std::vector<std::string>& names);

 private:
  struct Candidate;
  absl::StatusOr<std::map<std::string, SettingInfo>> Describe(SqlSession* session);
  absl::StatusOr<Candidate> Prepare(const ApplyConfigRequest& request, SqlSession* session);
  absl::Status CheckOffline(const SettingMap& user, const std::vector<SettingChange>& changes);
  absl::Status CheckRecoveryMinimums(const std::vector<SettingChange>& changes);
  absl::Status CheckFiles(SqlSession& session, const std::map<std::string, SettingInfo>& infos);
  absl::StatusOr<ReloadResult> ReloadLocked(SqlSession& session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Install& install_;
  const SessionFactory connect_;
  base::Clock& clock_;
  base::Mutex mutex_;
};

// Rows of `postgres --describe-config` (tab separated). Pure.
std::vector<SettingInfo> ParseDescribeConfig(std::string_view output);
// "invalid value for parameter …: …" from postgres's standard error: the FATAL or ERROR line with its DETAIL and HINT.
std::string PostgresReason(std::string_view standard_error);

}  // namespace metal::pg
