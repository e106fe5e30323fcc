// Node's verbs for the configuration. Changes are short: they hold the action lock and are
// remembered by request_id.
#include "agent/base/status.h"
#include "agent/base/text_map.h"
#include "agent/node/database_faults.h"
#include "agent/node/node.h"

namespace metal::node {

namespace {

// Lists of texts inside a map: "<prefix>.<index>".
void PutList(std::map<std::string, std::string>& map, const std::string& prefix,
             const std::vector<std::string>& list) {
  for (size_t i = 0; i < list.size(); ++i) map[fmt::format("{}.{:06}", prefix, i)] = list[i];
}

std::vector<std::string> GetList(const std::map<std::string, std::string>& map,
                                 const std::string& prefix) {
  std::vector<std::string> list;
  for (auto it = map.lower_bound(prefix + "."); it != map.end(); ++it) {
    if (!it->first.starts_with(prefix + ".")) break;
    list.push_back(it->second);
  }
  return list;
}

std::string EncodeApply(const ApplyConfigAnswer& answer) {
  std::map<std::string, std::string> map;
  std::vector<std::string> names, olds, news, restarts;
  for (const ConfigChange& change : answer.changes) {
    names.push_back(change.name);
    olds.push_back(change.old_value);
    news.push_back(change.new_value);
    restarts.push_back(change.requires_restart ? "true" : "false");
  }
  PutList(map, "name", names);
  PutList(map, "old", olds);
  PutList(map, "new", news);
  PutList(map, "restart", restarts);
  PutList(map, "pending", answer.pending_restart);
  map["reloaded"] = answer.reloaded ? "true" : "false";
  return base::EncodeMap(map);
}

ApplyConfigAnswer DecodeApply(const std::string& text) {
  const auto map = base::DecodeMap(text);
  const auto names = GetList(map, "name"), olds = GetList(map, "old"), news = GetList(map, "new"),
             restarts = GetList(map, "restart");
  ApplyConfigAnswer answer;
  for (size_t i = 0; i < names.size() && i < olds.size() && i < news.size() && i < restarts.size();
       ++i) {
    answer.changes.push_back({names[i], olds[i], news[i], restarts[i] == "true"});
  }
  answer.pending_restart = GetList(map, "pending");
  const auto reloaded = map.find("reloaded");
  answer.reloaded = reloaded != map.end() && reloaded->second == "true";
  return answer;
}

absl::Status DiskDoesNotAnswer(std::string_view what, const std::string& directory) {
  return base::Error(absl::StatusCode::kDeadlineExceeded,
                     "read {} in {}: its disk does not answer. HINT: metalctl disk health", what,
                     directory);
}

}  // namespace

absl::StatusOr<ReloadConfigAnswer> Node::ReloadConfig(const RequestContext& context) {
  METAL_ASSIGN_OR_RETURN(
      const std::string text,
      parts_.operations.RunOnce(context, "ReloadConfig", [&]() -> absl::StatusOr<std::string> {
        METAL_RETURN_IF_ERROR(Admit(RoleRequest::kChangeConfig));
        METAL_ASSIGN_OR_RETURN(const auto holder, parts_.operations.action_lock().TryAcquire(
                                                      "ReloadConfig", "ReloadConfig"));
        METAL_ASSIGN_OR_RETURN(const pg::ReloadResult result, parts_.config_editor.Reload());
        std::map<std::string, std::string> map;
        map["load_us"] = fmt::format("{}", absl::ToUnixMicros(result.loaded));
        PutList(map, "pending", result.pending_restart);
        return base::EncodeMap(map);
      }));
  const auto map = base::DecodeMap(text);
  ReloadConfigAnswer answer;
  const auto loaded = map.find("load_us");
  if (loaded != map.end()) {
    answer.load_time = absl::FromUnixMicros(std::strtoll(loaded->second.c_str(), nullptr, 10));
  }
  answer.pending_restart = GetList(map, "pending");
  return answer;
}

absl::StatusOr<ApplyConfigAnswer> Node::ApplyConfig(const RequestContext& context,
                                                    const ApplyConfigRequest& request) {
  pg::ApplyConfigRequest apply;
  apply.validate_only = request.validate_only;
  for (const auto& [name, value] : request.settings) apply.settings[name] = value;
  for (const std::string& name : request.reset) {
    const auto [setting, inserted] = apply.settings.try_emplace(name, std::nullopt);
    if (!inserted) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "{} is both set and reset. HINT: name it once", name);
    }
  }
  if (apply.settings.empty()) {
    return absl::InvalidArgumentError("no setting is named. HINT: give settings or reset");
  }
  METAL_ASSIGN_OR_RETURN(
      const std::string text,
      parts_.operations.RunOnce(context, "ApplyConfig", [&]() -> absl::StatusOr<std::string> {
        METAL_RETURN_IF_ERROR(CheckTornPages(*parts_.board.Get(), request.settings));
        METAL_RETURN_IF_ERROR(Admit(RoleRequest::kChangeConfig));
        ActionLock::Holder holder;
        if (!request.validate_only) {
          METAL_ASSIGN_OR_RETURN(
              holder, parts_.operations.action_lock().TryAcquire("ApplyConfig", "ApplyConfig"));
        }
        METAL_ASSIGN_OR_RETURN(const pg::ApplyConfigResult result,
                               parts_.config_editor.Apply(apply));
        ApplyConfigAnswer answer;
        for (const pg::SettingChange& change : result.changes) {
          answer.changes.push_back({change.name, change.old_value.value_or(""),
                                    change.new_value.value_or(""), change.restart_required});
        }
        answer.pending_restart = result.reload.pending_restart;
        answer.reloaded = result.reloaded;
        return EncodeApply(answer);
      }));
  return DecodeApply(text);
}

absl::StatusOr<ConfigAnswer> Node::GetConfig(bool include_effective, absl::Duration patience) {
  ConfigAnswer answer;
  const std::string& directory = parts_.config.pg_data_dir;
  const auto read = data_reads_.Run<absl::StatusOr<pg::ManagedSettings>>(
      "read-config", [directory] { return pg::LoadManagedSettings(directory); }, patience);
  if (!read) return DiskDoesNotAnswer("settings", directory);
  METAL_ASSIGN_OR_RETURN(const pg::ManagedSettings managed, *read);
  for (const auto& [name, value] : managed.user) {
    answer.managed.push_back({name, value, "", "managed", false});
  }
  for (const auto& [name, value] : managed.agent) {
    answer.managed.push_back({name, value, "", "agent", false});
  }
  if (!include_effective) return answer;
  METAL_ASSIGN_OR_RETURN(const auto settings, parts_.config_editor.List({}));
  for (const pg::SettingInfo& setting : settings) {
    answer.effective.push_back(
        {setting.name, setting.value, setting.unit, setting.source, setting.pending_restart});
  }
  return answer;
}

absl::StatusOr<pg::ControlFile> Node::GetControlData(absl::Duration patience) {
  const std::string& directory = parts_.config.pg_data_dir;
  const auto read = data_reads_.Run<absl::StatusOr<pg::ControlFile>>(
      "read-control", [directory] { return pg::ReadControlFile(directory); }, patience);
  if (!read) return DiskDoesNotAnswer("pg_control", directory);
  const absl::StatusOr<pg::ControlFile>& control = *read;
  if (absl::IsNotFound(control.status())) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "{} is no data directory. HINT: InitDataDirectory or RestoreBackup first",
                    parts_.config.pg_data_dir),
        {.reason = "DATA_DIRECTORY_MISSING",
         .metadata = {{"data_directory", parts_.config.pg_data_dir}}});
  }
  return control;
}

}  // namespace metal::node
