#include "agent/pg/apply_config.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/pg/control_file.h"
#include "agent/pg/process.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kQueryTimeout = absl::Seconds(10);
constexpr absl::Duration kReloadPoll = absl::Milliseconds(20);
constexpr size_t kMostOfflineReads = 50;
constexpr std::string_view kNotApplied = "setting could not be applied";

// Where the files are is decided by the agent's own configuration.
constexpr std::string_view kPlaces[] = {"data_directory", "config_file", "hba_file", "ident_file",
                                        "external_pid_file"};

constexpr const char* kSettingsSql =
    "SELECT name, setting, coalesce(unit, '') AS unit, context, vartype, boot_val, min_val, "
    "max_val, "
    "array_to_string(enumvals, E'\\x01') AS enum_values, source, sourcefile, sourceline, "
    "pending_restart, short_desc "
    "FROM pg_settings";

absl::Status Rejected(const std::string& name, const std::string& postgres_message) {
  return base::WithReason(
      base::Error(absl::StatusCode::kInvalidArgument, "postgres rejects setting {}: {}", name,
                  postgres_message),
      {"SETTING_REJECTED", {{"setting", name}, {"postgres_message", postgres_message}}});
}

absl::Status Owned(const std::string& name) {
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "setting {} is decided by the agent. HINT: change the agent's configuration file",
                  name),
      {"SETTING_OWNED", {{"setting", name}}});
}

std::string LowerCase(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool ValidName(const std::string& name) {
  return !name.empty() && name.size() < 128 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '$';
         });
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t start = 0;
  while (start <= text.size() && !text.empty()) {
    const size_t end = std::min(text.find(separator, start), text.size());
    parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

SettingInfo InfoOf(const SqlResult& result, size_t row) {
  SettingInfo info;
  info.name = LowerCase(result.Text(row, "name"));
  info.value = result.Text(row, "setting");
  info.unit = result.Text(row, "unit");
  info.context = result.Text(row, "context");
  info.type = result.Text(row, "vartype");
  info.boot_value = result.Text(row, "boot_val");
  info.min_value = result.Text(row, "min_val");
  info.max_value = result.Text(row, "max_val");
  info.enum_values = Split(result.Text(row, "enum_values"), '\x01');
  info.source = result.Text(row, "source");
  info.source_file = result.Text(row, "sourcefile");
  info.source_line = static_cast<int>(result.Int(row, "sourceline").value_or(0));
  info.pending_restart = result.Bool(row, "pending_restart");
  info.description = result.Text(row, "short_desc");
  return info;
}

std::optional<std::string> Find(const SettingMap& settings, const std::string& name) {
  const auto found = settings.find(name);
  if (found == settings.end()) return std::nullopt;
  return found->second;
}

// Below the primary's values a standby stops its recovery. The texts are those of PostgreSQL's
// RecoveryRequiresIntParameter.
absl::Status CheckRecoveryMinimums(const std::string& data_dir, const SettingMap& wanted) {
  METAL_ASSIGN_OR_RETURN(const ControlFile control, ReadControlFile(data_dir));
  const std::pair<const char*, int> minimums[] = {
      {"max_connections", control.max_connections},
      {"max_worker_processes", control.max_worker_processes},
      {"max_wal_senders", control.max_wal_senders},
      {"max_prepared_transactions", control.max_prepared_transactions},
      {"max_locks_per_transaction", control.max_locks_per_transaction}};
  for (const auto& [name, minimum] : minimums) {
    const auto setting = wanted.find(name);
    if (setting == wanted.end()) continue;
    int value = 0;
    const std::string& text = setting->second;
    std::from_chars(text.data(), text.data() + text.size(), value);
    if (value >= minimum) continue;
    return Rejected(
        name,
        fmt::format("hot standby is not possible because of insufficient parameter settings: {} = "
                    "{} is a lower setting than on the primary server, where its value was {}",
                    name, value, minimum));
  }
  return absl::OkStatus();
}

// With ssl = on PostgreSQL reads these only when it starts or reloads; a start without them fails.
absl::Status CheckSslFiles(Install& install, const std::string& data_dir,
                           const SettingMap& wanted) {
  const auto in_force = [&](const char* name) -> absl::StatusOr<std::string> {
    const auto setting = wanted.find(name);
    if (setting != wanted.end()) return setting->second;
    return ReadConfiguredValue(install, data_dir, name);
  };
  const bool concerned = std::any_of(wanted.begin(), wanted.end(), [](const auto& setting) {
    return setting.first.starts_with("ssl");
  });
  if (!concerned) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const std::string ssl, in_force("ssl"));
  const std::string on = LowerCase(ssl);
  if (on != "on" && on != "true" && on != "yes" && on != "1") return absl::OkStatus();
  for (const char* name : {"ssl_cert_file", "ssl_key_file"}) {
    METAL_ASSIGN_OR_RETURN(const std::string file, in_force(name));
    const std::string path = file.starts_with("/") ? file : base::JoinPath(data_dir, file);
    if (access(path.c_str(), R_OK) == 0) continue;
    return Rejected(wanted.contains(name) ? name : "ssl",
                    std::string(base::ErrnoStatus(errno, "load", path).message()));
  }
  return absl::OkStatus();
}

}  // namespace

ConfigEditor::ConfigEditor(Options options, Install& install, SessionFactory connect,
                           base::Clock& clock)
    : options_(std::move(options)),
      install_(install),
      connect_(std::move(connect)),
      clock_(clock) {}

absl::StatusOr<std::unique_ptr<SqlSession>> ConfigEditor::Connect() {
  absl::StatusOr<std::unique_ptr<SqlSession>> session = connect_();
  if (!absl::IsUnavailable(session.status())) return session;
  // Only a server that is not there is down: one that is starting, or full of clients, is not.
  METAL_ASSIGN_OR_RETURN(const auto found, FindPostmaster({options_.data_dir, install_.bin_dir()}));
  if (!found) return std::unique_ptr<SqlSession>();
  return base::Annotate(session.status(),
                        fmt::format("postgres runs as process {}, but", found->process->pid()));
}

absl::StatusOr<ConfigEditor::InfoMap> ConfigEditor::Describe(SqlSession* session) {
  InfoMap infos;
  if (session != nullptr) {
    METAL_ASSIGN_OR_RETURN(const SqlResult result, session->Query(kSettingsSql, kQueryTimeout));
    for (size_t row = 0; row < result.rows.size(); ++row) {
      SettingInfo info = InfoOf(result, row);
      infos.emplace(info.name, std::move(info));
    }
    return infos;
  }
  METAL_ASSIGN_OR_RETURN(std::vector<SettingInfo> list, DescribeConfig(install_));
  for (SettingInfo& info : list) infos.emplace(info.name, std::move(info));
  return infos;
}

absl::StatusOr<ConfigEditor::Plan> ConfigEditor::MakePlan(const ApplyConfigRequest& request,
                                                          const InfoMap& infos) {
  Plan plan;
  METAL_ASSIGN_OR_RETURN(plan.before, LoadManagedSettings(options_.data_dir));
  plan.after = plan.before;
  for (const auto& [given, value] : request.settings) {
    const std::string name = LowerCase(given);
    if (!ValidName(name))
      return Rejected(given, fmt::format("invalid configuration parameter name \"{}\"", given));
    if (IsAgentOwned(options_.agent, name)) return Owned(name);
    if (std::find(std::begin(kPlaces), std::end(kPlaces), name) != std::end(kPlaces))
      return Owned(name);
    const auto info = infos.find(name);
    if (info != infos.end() && info->second.context == "internal") {
      return Rejected(name, fmt::format("parameter \"{}\" cannot be changed", name));
    }
    if (value) {
      const absl::StatusOr<std::string> quoted = QuoteSetting(*value);
      if (!quoted.ok()) return base::Annotate(quoted.status(), fmt::format("setting {}", name));
      if (name == "wal_level" && LowerCase(*value) == "minimal") {
        return Rejected(
            name, "WAL archival and streaming cannot be enabled when wal_level is \"minimal\"");
      }
    }
    SettingChange change;
    change.name = name;
    change.old_value = Find(plan.before.user, name);
    change.new_value = value;
    if (change.old_value == change.new_value) continue;
    if (info != infos.end()) change.context = info->second.context;
    change.restart_required = change.context == "postmaster";
    if (value) {
      plan.after.user[name] = *value;
    } else {
      plan.after.user.erase(name);
    }
    plan.changes.push_back(std::move(change));
  }
  std::sort(plan.changes.begin(), plan.changes.end(),
            [](const SettingChange& a, const SettingChange& b) { return a.name < b.name; });
  return plan;
}

// A reset falls back to the user's own postgresql.conf, else to the server's default.
absl::StatusOr<SettingMap> ConfigEditor::ValuesAfter(const Plan& plan, const InfoMap& infos) {
  const std::string path = base::JoinPath(options_.data_dir, "postgresql.conf");
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path));
  const absl::StatusOr<SettingMap> own = ParseSettings(text);
  if (!own.ok()) return base::Annotate(own.status(), path);
  SettingMap wanted;
  for (const SettingChange& change : plan.changes) {
    const auto info = infos.find(change.name);
    if (change.new_value) {
      wanted[change.name] = *change.new_value;
    } else if (const std::optional<std::string> value = Find(*own, change.name)) {
      wanted[change.name] = *value;
    } else if (info != infos.end() && !info->second.boot_value.empty()) {
      wanted[change.name] = info->second.boot_value;
    }
  }
  return wanted;
}

absl::Status ConfigEditor::CheckPlan(const Plan& plan, const InfoMap& infos, bool in_recovery) {
  METAL_ASSIGN_OR_RETURN(const SettingMap wanted, ValuesAfter(plan, infos));
  METAL_RETURN_IF_ERROR(CheckSettings(install_, options_.data_dir, options_.scratch_dir, wanted));
  METAL_RETURN_IF_ERROR(CheckSslFiles(install_, options_.data_dir, wanted));
  METAL_RETURN_IF_ERROR(CheckNotOverridden(plan));
  return in_recovery ? CheckRecoveryMinimums(options_.data_dir, wanted) : absl::OkStatus();
}

absl::Status ConfigEditor::CheckNotOverridden(const Plan& plan) {
  const std::string path = base::JoinPath(options_.data_dir, "postgresql.auto.conf");
  const absl::StatusOr<std::string> text = base::ReadFile(path);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (!text.ok()) return text.status();
  const absl::StatusOr<SettingMap> automatic = ParseSettings(*text);
  if (!automatic.ok()) return base::Annotate(automatic.status(), path);
  for (const SettingChange& change : plan.changes) {
    const std::optional<std::string> value = Find(*automatic, change.name);
    if (!value || !change.new_value || *value == *change.new_value) continue;
    return base::WithReason(base::Error(absl::StatusCode::kFailedPrecondition,
                                        "setting {} is overridden by postgresql.auto.conf (value "
                                        "{}). HINT: ALTER SYSTEM RESET {}",
                                        change.name, *value, change.name),
                            {"SETTING_OVERRIDDEN", {{"setting", change.name}, {"file", path}}});
  }
  return absl::OkStatus();
}

absl::StatusOr<ApplyConfigResult> ConfigEditor::Apply(const ApplyConfigRequest& request) {
  base::MutexLock lock(mutex_);
  METAL_ASSIGN_OR_RETURN(const std::unique_ptr<SqlSession> session, Connect());
  METAL_ASSIGN_OR_RETURN(const InfoMap infos, Describe(session.get()));
  METAL_ASSIGN_OR_RETURN(const Plan plan, MakePlan(request, infos));
  ApplyConfigResult result;
  result.changes = plan.changes;
  if (plan.changes.empty()) {
    // An earlier call may have died between the file and the reload.
    if (!session || request.validate_only) return result;
    METAL_RETURN_IF_ERROR(CheckFiles(*session));
    METAL_ASSIGN_OR_RETURN(result.reload, ReloadWith(*session));
    result.reloaded = true;
    return result;
  }
  METAL_ASSIGN_OR_RETURN(bool in_recovery,
                         base::Exists(base::JoinPath(options_.data_dir, "standby.signal")));
  if (session) {
    METAL_ASSIGN_OR_RETURN(const SqlResult recovery,
                           session->Query("SELECT pg_is_in_recovery() AS r", kQueryTimeout));
    in_recovery = recovery.Bool(0, "r");
  }
  METAL_RETURN_IF_ERROR(CheckPlan(plan, infos, in_recovery));
  if (request.validate_only) return result;

  METAL_RETURN_IF_ERROR(InstallManagedSettings(options_.data_dir, options_.agent));
  METAL_ASSIGN_OR_RETURN(ManagedSettings now, LoadManagedSettings(options_.data_dir));
  ManagedSettings next = now;
  next.user = plan.after.user;
  METAL_RETURN_IF_ERROR(StoreManagedSettings(options_.data_dir, next));
  METAL_RETURN_IF_ERROR(base::FaultPoint("pg.settings_written"));
  if (!session) return result;
  if (const absl::Status accepted = CheckFiles(*session); !accepted.ok()) {
    now.user = plan.before.user;
    return PutBack(now, accepted);
  }
  absl::StatusOr<ReloadResult> reload = ReloadWith(*session);
  if (!reload.ok()) {
    now.user = plan.before.user;
    absl::Status failure = PutBack(now, reload.status());
    // A server that only was slow may load the new file yet: it shall find the old one loaded last.
    if (session->connected())
      session->Query("SELECT pg_reload_conf()", kQueryTimeout).status().IgnoreError();
    return failure;
  }
  result.reload = *std::move(reload);
  result.reloaded = true;
  return result;
}

// metal.conf as it was before; answers `why` it has to be.
absl::Status ConfigEditor::PutBack(const ManagedSettings& before, const absl::Status& why) {
  const absl::Status restored = StoreManagedSettings(options_.data_dir, before);
  if (restored.ok()) return why;
  return base::Error(restored.code(), "{}; and restoring metal.conf failed: {}",
                     std::string(why.message()), std::string(restored.message()));
}

absl::StatusOr<ReloadResult> ConfigEditor::Reload() {
  base::MutexLock lock(mutex_);
  METAL_ASSIGN_OR_RETURN(const std::unique_ptr<SqlSession> session, connect_());
  METAL_RETURN_IF_ERROR(CheckFiles(*session));
  return ReloadWith(*session);
}

absl::Status ConfigEditor::CheckFiles(SqlSession& session) {
  // A changed setting that needs a restart has an "error" here too; it is reported as pending
  // instead.
  METAL_ASSIGN_OR_RETURN(
      const SqlResult files,
      session.Query(
          "SELECT f.sourcefile AS file, f.sourceline AS line, coalesce(f.name, '') AS name, "
          "f.error "
          "FROM pg_file_settings AS f LEFT JOIN pg_settings AS s ON lower(s.name) = lower(f.name) "
          "WHERE f.error IS NOT NULL AND NOT (s.context IS NOT DISTINCT FROM 'postmaster' AND "
          "f.error = 'setting could not be applied')",
          kQueryTimeout));
  METAL_ASSIGN_OR_RETURN(
      const SqlResult hba,
      session.Query(
          "SELECT current_setting('hba_file') AS file, line_number AS line, '' AS name, error "
          "FROM pg_hba_file_rules WHERE error IS NOT NULL",
          kQueryTimeout));
  for (const SqlResult* result : {&files, &hba}) {
    if (result->rows.empty()) continue;
    const std::string name = result->Text(0, "name");
    std::string reason = result->Text(0, "error");
    if (reason == kNotApplied) {
      // The server keeps the reason to its log; postgres tells it when it reads the same files.
      const absl::Status read =
          CheckSettings(install_, options_.data_dir, options_.scratch_dir, {});
      const std::optional<base::ErrorReason> details = base::GetReason(read);
      if (details && details->metadata.contains("postgres_message")) {
        reason = details->metadata.at("postgres_message");
      }
    }
    return base::WithReason(
        base::Error(absl::StatusCode::kInvalidArgument,
                    "{} line {}: {}{}. HINT: correct the file; nothing was reloaded",
                    result->Text(0, "file"), result->Text(0, "line"),
                    name.empty() ? name : name + ": ", reason),
        {"SETTING_REJECTED", {{"setting", name}, {"postgres_message", reason}}});
  }
  return absl::OkStatus();
}

absl::StatusOr<ReloadResult> ConfigEditor::ReloadWith(SqlSession& session) {
  constexpr const char* kLoadedSql = "SELECT extract(epoch FROM pg_conf_load_time()) AS loaded";
  METAL_ASSIGN_OR_RETURN(const SqlResult before, session.Query(kLoadedSql, kQueryTimeout));
  METAL_ASSIGN_OR_RETURN(const SqlResult asked,
                         session.Query("SELECT pg_reload_conf() AS asked", kQueryTimeout));
  if (!asked.Bool(0, "asked")) {
    return base::Error(absl::StatusCode::kInternal,
                       "reload: postgres could not signal its postmaster");
  }
  const base::MonotonicTime deadline = clock_.Monotonic() + options_.timeout;
  ReloadResult result;
  while (true) {
    METAL_ASSIGN_OR_RETURN(const SqlResult now, session.Query(kLoadedSql, kQueryTimeout));
    result.loaded = now.Time(0, "loaded");
    if (result.loaded > before.Time(0, "loaded")) break;
    if (clock_.Monotonic() >= deadline) {
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "reload: postgres did not load its configuration within {}. HINT: look at "
                         "the server's log",
                         absl::FormatDuration(options_.timeout));
    }
    clock_.Sleep(kReloadPoll);
  }
  METAL_ASSIGN_OR_RETURN(
      const SqlResult pending,
      session.Query("SELECT name FROM pg_settings WHERE pending_restart ORDER BY name",
                    kQueryTimeout));
  for (size_t row = 0; row < pending.rows.size(); ++row)
    result.pending_restart.push_back(pending.Text(row, "name"));
  return result;
}

absl::StatusOr<std::vector<SettingInfo>> ConfigEditor::List(const std::vector<std::string>& names) {
  METAL_ASSIGN_OR_RETURN(const std::unique_ptr<SqlSession> session, Connect());
  METAL_ASSIGN_OR_RETURN(InfoMap infos, Describe(session.get()));
  if (!session) return ListOffline(infos, names);
  std::vector<SettingInfo> list;
  for (auto& [name, info] : infos) {
    if (names.empty() || std::find(names.begin(), names.end(), name) != names.end())
      list.push_back(std::move(info));
  }
  return list;
}

std::vector<SettingInfo> ConfigEditor::ListOffline(const InfoMap& infos,
                                                   const std::vector<std::string>& names) {
  const ManagedSettings managed =
      LoadManagedSettings(options_.data_dir).value_or(ManagedSettings{});
  std::vector<SettingInfo> list;
  for (const auto& [name, described] : infos) {
    if (!names.empty() && std::find(names.begin(), names.end(), name) == names.end()) continue;
    SettingInfo info = described;
    info.value = info.boot_value;
    info.source = "default";
    for (const SettingMap* settings : {&managed.user, &managed.agent}) {
      if (const std::optional<std::string> value = Find(*settings, name)) {
        info.value = *value;
        info.source = "configuration file";
        info.source_file = base::JoinPath(options_.data_dir, kManagedSettingsFile);
      }
    }
    // Each costs a run of postgres, so only for what was asked for by name.
    if (info.source == "default" && !names.empty() && names.size() <= kMostOfflineReads) {
      const absl::StatusOr<std::string> value =
          ReadConfiguredValue(install_, options_.data_dir, name);
      if (value.ok() && *value != info.value) {
        info.value = *value;
        info.source = "configuration file";
      }
    }
    list.push_back(std::move(info));
  }
  return list;
}

}  // namespace metal::pg
