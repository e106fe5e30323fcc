// ConfigEditor: validates and applies settings, reloads the configuration, reads what is in force.
// A setting that Postgres would reject is refused with Postgres's own reason and nothing is
// changed. Threading: thread-safe; one change at a time (a second waits). Blocks on the data disk,
// subprocesses and SQL.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/pg/config_check.h"
#include "agent/pg/install.h"
#include "agent/pg/session.h"
#include "agent/pg/settings.h"

namespace metal::pg {

struct SettingChange {
  std::string name;
  std::optional<std::string> old_value;  // in metal.conf; nullopt: was not set there
  std::optional<std::string> new_value;  // nullopt: removed
  std::string context;
  bool restart_required = false;
  friend bool operator==(const SettingChange&, const SettingChange&) = default;
};

struct ApplyConfigRequest {
  std::map<std::string, std::optional<std::string>>
      settings;  // nullopt: remove, back to the user's files or the default
  bool validate_only = false;
};

struct ReloadResult {
  absl::Time loaded;                         // pg_conf_load_time
  std::vector<std::string> pending_restart;  // settings whose new value waits for a restart
};

struct ApplyConfigResult {
  std::vector<SettingChange> changes;  // only those that differ; sorted by name
  bool reloaded = false;               // false: validate_only, or the server is down
  ReloadResult reload;
};

class ConfigEditor {
 public:
  struct Options {
    std::string data_dir;
    std::string scratch_dir;  // a private directory is made here for each check; usually the state
                              // directory
    AgentSettings agent;
    absl::Duration timeout = absl::Seconds(30);
  };
  // `install`, `clock` outlive this. `connect` gives a session, or an error while the server is
  // down.
  ConfigEditor(Options options, Install& install, SessionFactory connect, base::Clock& clock);

  // INVALID_ARGUMENT (reason SETTING_REJECTED, metadata setting, postgres_message): unknown name,
  // bad value, cannot be changed. FAILED_PRECONDITION (SETTING_OWNED): the agent's own.
  // FAILED_PRECONDITION (SETTING_OVERRIDDEN): another file sets it after metal.conf. On an error
  // metal.conf is as before.
  absl::StatusOr<ApplyConfigResult> Apply(const ApplyConfigRequest& request);

  // Checks the files (pg_file_settings) before the signal and waits until pg_conf_load_time moved.
  // INVALID_ARGUMENT with file and line when a file has an error: nothing is signalled. UNAVAILABLE
  // when the server is down.
  absl::StatusOr<ReloadResult> Reload();

  // All settings whose name matches one of `names` (all when empty), sorted by name.
  absl::StatusOr<std::vector<SettingInfo>> List(const std::vector<std::string>& names);

 private:
  using InfoMap = std::map<std::string, SettingInfo>;
  struct Plan {
    ManagedSettings before, after;
    std::vector<SettingChange> changes;
  };
  // Null while the server is down.
  absl::StatusOr<std::unique_ptr<SqlSession>> Connect();
  absl::StatusOr<InfoMap> Describe(SqlSession* session);
  absl::StatusOr<Plan> MakePlan(const ApplyConfigRequest& request, const InfoMap& infos);
  // What the changed settings are going to be, as far as it is known.
  absl::StatusOr<SettingMap> ValuesAfter(const Plan& plan, const InfoMap& infos);
  absl::Status CheckPlan(const Plan& plan, const InfoMap& infos, bool in_recovery);
  absl::Status PutBack(const ManagedSettings& before, const absl::Status& why);
  absl::Status CheckNotOverridden(const Plan& plan);
  absl::Status CheckFiles(SqlSession& session);
  absl::StatusOr<ReloadResult> ReloadWith(SqlSession& session);
  std::vector<SettingInfo> ListOffline(const InfoMap& infos, const std::vector<std::string>& names);

  const Options options_;
  Install& install_;
  const SessionFactory connect_;
  base::Clock& clock_;
  base::Mutex mutex_;
};

}  // namespace metal::pg
