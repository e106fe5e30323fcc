#include "agent/pg/settings.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "agent/base/check.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/read_only_file.h"

namespace metal::pg {
namespace {

constexpr std::string_view kBegin =
    "# >>> managed by metal-agent; lines up to <<< are overwritten\n";
constexpr std::string_view kEnd = "# <<< managed by metal-agent\n";
constexpr std::string_view kHeader =
    "# Written by metal-agent. Change settings with `metalctl pg config set`; edits here are "
    "lost.\n";
constexpr std::string_view kUserMark = "# settings of the user\n";
constexpr std::string_view kAgentMark = "# settings of the agent: the last line wins\n";

constexpr std::string_view kVerbSettings[] = {"primary_conninfo", "primary_slot_name",
                                              "restore_command", "synchronous_standby_names"};

constexpr const char* kWalLevel = "wal_level";
constexpr const char* kReceiverTimeout = "wal_receiver_timeout";
constexpr const char* kSenderTimeout = "wal_sender_timeout";

// `initial` for a directory whose postgresql.conf may have an opinion: metal.conf is read after it.
// initdb's own file sets nothing of it, but for the way passwords are stored, as it was told to.
SettingMap WithoutOwn(SettingMap initial, std::string_view postgresql_conf) {
  const absl::StatusOr<SettingMap> own = ParseSettings(postgresql_conf);
  if (!own.ok()) return initial;  // postgres itself will name the line
  for (const auto& [name, value] : *own) {
    // With "minimal" there is neither an archive nor a standby.
    if (name == kWalLevel && absl::EqualsIgnoreCase(value, "minimal")) continue;
    initial.erase(name);
  }
  return initial;
}

// One shell word; '%' is doubled because Postgres expands %p, %f and %r.
std::string ShellWord(std::string_view text) {
  std::string word = "'";
  for (char c : text) {
    if (c == '\'') {
      word += "'\\''";
    } else if (c == '%') {
      word += "%%";
    } else {
      word += c;
    }
  }
  return word + "'";
}

absl::Status AppendSettings(const SettingMap& settings, std::string& text) {
  for (const auto& [name, value] : settings) {
    absl::StatusOr<std::string> quoted = QuoteSetting(value);
    if (!quoted.ok()) return base::Annotate(quoted.status(), fmt::format("setting {}", name));
    text += fmt::format("{} = {}\n", name, *quoted);
  }
  return absl::OkStatus();
}

absl::StatusOr<mode_t> ModeOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return base::ErrnoStatus(errno, "stat", path);
  return static_cast<mode_t>(info.st_mode & 0777);
}

}  // namespace

std::string ArchiveCommand(const std::string& wal_helper, const std::string& wal_socket) {
  return fmt::format("{} push --socket={} %p %f", ShellWord(wal_helper), ShellWord(wal_socket));
}

std::string RestoreCommand(const std::string& wal_helper, const std::string& wal_socket) {
  return fmt::format("{} fetch --socket={} %f %p", ShellWord(wal_helper), ShellWord(wal_socket));
}

SettingMap AgentOwnedSettings(const AgentSettings& agent) {
  SettingMap settings = {{"listen_addresses", agent.listen_addresses},
                         {"port", fmt::format("{}", agent.port)},
                         {"unix_socket_directories", agent.socket_dir},
                         {"cluster_name", agent.cluster_name},
                         {"hot_standby", "on"}};
  if (agent.archiving) {
    settings["archive_mode"] = "on";
    settings["archive_command"] = ArchiveCommand(agent.wal_helper, agent.wal_socket);
  }
  if (agent.restore_command && !agent.restore_command->empty()) {
    settings["restore_command"] = *agent.restore_command;
  }
  return settings;
}

std::span<const std::string_view> VerbSettings() { return kVerbSettings; }

bool IsAgentOwned(const AgentSettings& agent, std::string_view name) {
  if (name == "archive_library") return agent.archiving;
  if (std::ranges::find(kVerbSettings, name) != std::end(kVerbSettings)) return true;
  return AgentOwnedSettings(agent).contains(std::string(name));
}

SettingMap InitialUserSettings() {
  return {
      {kWalLevel, "replica"},
      {"wal_log_hints", "on"},  // pg_rewind works even where checksums are turned off later
      {"max_wal_senders", "10"},
      // A dead link shows in seconds; the server's own minute is as long as an outage.
      {kReceiverTimeout, "10s"},
      {kSenderTimeout, "10s"},
      // Commits may wait for a standby whose first try to stream came too early.
      {"wal_retrieve_retry_interval", "500ms"},
      {"password_encryption", "scram-sha-256"},
      {"data_sync_retry",
       "off"},  // a failed fsync must not be retried: the kernel forgets the pages
      {"update_process_title", "on"},
      {"logging_collector", "off"},  // standard error goes to the agent's server log
      {"log_line_prefix", "%m [%p] %q%u@%d %a "},
      {"log_checkpoints", "on"},
  };
}

absl::StatusOr<std::string> QuoteSetting(std::string_view value) {
  std::string quoted = "'";
  for (char c : value) {
    if (c == '\n' || c == '\r' || c == '\0') {
      return base::Error(
          absl::StatusCode::kInvalidArgument,
          "value holds a line break or a NUL byte, which a configuration file cannot carry");
    }
    if (c == '\'' || c == '\\') quoted += c;
    quoted += c;
  }
  return quoted + "'";
}

absl::StatusOr<std::string> RenderManagedSettings(const ManagedSettings& settings) {
  std::string text(kHeader);
  text += kUserMark;
  METAL_RETURN_IF_ERROR(AppendSettings(settings.user, text));
  text += kAgentMark;
  METAL_RETURN_IF_ERROR(AppendSettings(settings.agent, text));
  return text;
}

absl::StatusOr<ManagedSettings> ParseManagedSettings(std::string_view text) {
  const size_t mark = text.find(kAgentMark);
  if (mark == std::string_view::npos) {
    return base::Error(
        absl::StatusCode::kInvalidArgument,
        "line \"{}\" is missing. HINT: restore the file, or move it away to start with none",
        kAgentMark.substr(0, kAgentMark.size() - 1));
  }
  ManagedSettings settings;
  METAL_ASSIGN_OR_RETURN(settings.user, ParseSettings(text.substr(0, mark)));
  METAL_ASSIGN_OR_RETURN(settings.agent, ParseSettings(text.substr(mark)));
  return settings;
}

std::string WithManagedInclude(std::string_view postgresql_conf) {
  const std::string block = fmt::format("{}include '{}'\ninclude_if_exists '{}'\n{}", kBegin,
                                        kManagedSettingsFile, kReadOnlyFile, kEnd);
  const size_t found = postgresql_conf.rfind(block);
  if (found != std::string_view::npos && postgresql_conf.find(kBegin) == found &&
      postgresql_conf.substr(found + block.size()).find_first_not_of(" \t\r\n") ==
          std::string_view::npos) {
    return std::string(postgresql_conf);
  }
  std::string rest(postgresql_conf);
  for (size_t begin = rest.find(kBegin); begin != std::string::npos; begin = rest.find(kBegin)) {
    const size_t end = rest.find(kEnd, begin);
    rest.erase(begin, end == std::string::npos ? kBegin.size() : end + kEnd.size() - begin);
  }
  if (!rest.empty() && rest.back() != '\n') rest += '\n';
  return rest + block;
}

absl::StatusOr<ManagedSettings> LoadManagedSettings(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, kManagedSettingsFile);
  const absl::StatusOr<std::string> text = base::ReadFile(path);
  if (absl::IsNotFound(text.status())) return ManagedSettings{};
  if (!text.ok()) return text.status();
  absl::StatusOr<ManagedSettings> settings = ParseManagedSettings(*text);
  if (!settings.ok()) return base::Annotate(settings.status(), path);
  return settings;
}

absl::Status StoreManagedSettings(const std::string& data_dir, const ManagedSettings& settings) {
  METAL_ASSIGN_OR_RETURN(const std::string text, RenderManagedSettings(settings));
  return base::WriteFileDurably(base::JoinPath(data_dir, kManagedSettingsFile), text, 0600);
}

std::string WithoutSettings(std::string_view text, const std::vector<std::string>& names) {
  std::string kept;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line =
        text.substr(0, end == std::string_view::npos ? text.size() : end + 1);
    text.remove_prefix(line.size());
    const absl::StatusOr<SettingMap> parsed = ParseSettings(line);
    const bool set = parsed.ok() && std::ranges::any_of(names, [&](const std::string& name) {
                       return parsed->contains(name);
                     });
    if (!set) kept += line;
  }
  return kept;
}

absl::Status PatchAgentPart(const std::string& data_dir, const SettingPatch& patch) {
  METAL_ASSIGN_OR_RETURN(ManagedSettings settings, LoadManagedSettings(data_dir));
  const SettingMap before = settings.agent;
  for (const auto& [name, value] : patch) {
    METAL_CHECK(std::ranges::find(kVerbSettings, name) != std::end(kVerbSettings));
    if (value) {
      settings.agent[name] = *value;
    } else {
      settings.agent.erase(name);
    }
  }
  if (settings.agent == before) return absl::OkStatus();
  return StoreManagedSettings(data_dir, settings);
}

absl::Status InstallManagedSettings(const std::string& data_dir, const AgentSettings& agent,
                                    const SettingMap& initial) {
  METAL_ASSIGN_OR_RETURN(const bool present,
                         base::Exists(base::JoinPath(data_dir, kManagedSettingsFile)));
  METAL_ASSIGN_OR_RETURN(ManagedSettings settings, LoadManagedSettings(data_dir));
  METAL_ASSIGN_OR_RETURN(const std::string before,
                         base::ReadFile(base::JoinPath(data_dir, "postgresql.conf")));
  if (!present) settings.user = WithoutOwn(initial, before);
  SettingMap owned = AgentOwnedSettings(agent);
  for (const std::string_view verb : kVerbSettings) {
    const std::string name(verb);
    if (name == "restore_command" && agent.restore_command) continue;
    if (settings.agent.contains(name)) owned[name] = settings.agent[name];
  }
  if (!present || settings.agent != owned) {
    settings.agent = std::move(owned);
    METAL_RETURN_IF_ERROR(StoreManagedSettings(data_dir, settings));
  }
  return EnsureManagedInclude(data_dir);
}

absl::Status EnsureManagedInclude(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, "postgresql.conf");
  METAL_ASSIGN_OR_RETURN(const std::string before, base::ReadFile(path));
  const std::string after = WithManagedInclude(before);
  if (after == before) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const mode_t mode, ModeOf(path));
  return base::WriteFileDurably(path, after, mode);
}

}  // namespace metal::pg
