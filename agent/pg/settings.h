// The managed settings file metal.conf in the data directory, included by one managed block at the
// end of postgresql.conf. A user's own lines are never changed. Inside metal.conf the user's
// settings (ApplyConfig) come first and the agent's last, so that the agent's win. Threading: pure
// functions, except InstallManagedSettings and the Load/Store pair, which block on the data disk.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::pg {

inline constexpr const char* kManagedSettingsFile = "metal.conf";

// Name → value as Postgres sees it, unquoted. Names are lower case.
using SettingMap = std::map<std::string, std::string>;

// What the agent decides by itself from its configuration.
struct AgentSettings {
  std::string listen_addresses = "127.0.0.1";
  int port = 5432;
  std::string socket_dir;
  std::string cluster_name;
  bool archiving =
      false;  // archive_mode = on; false: archive_mode and archive_command are left to the user
  std::string wal_helper;  // path of metal-wal
  std::string wal_socket;  // its unix socket
  // For a restored copy that still has to read WAL from the repository. nullopt: keep what
  // metal.conf says; "": none.
  std::optional<std::string> restore_command;
};

// Settings of the agent's part that no configuration file of the agent decides, but its verbs:
// where WAL comes from (restore_command, primary_conninfo, primary_slot_name) and who has to
// acknowledge commits (synchronous_standby_names).
std::span<const std::string_view> VerbSettings();

// The settings that ApplyConfig may not touch, with their values. The shell words of
// archive_command are quoted.
SettingMap AgentOwnedSettings(const AgentSettings& agent);
// The names of AgentOwnedSettings and those that would work against them (archive_library while
// archiving).
bool IsAgentOwned(const AgentSettings& agent, std::string_view name);
// Settings a new cluster starts with that a user may change (wal_log_hints, log_line_prefix, …).
SettingMap InitialUserSettings();

// "<helper> fetch --socket=<socket> %f %p", with shell quoting, '%' doubled in the paths.
std::string RestoreCommand(const std::string& wal_helper, const std::string& wal_socket);
std::string ArchiveCommand(const std::string& wal_helper, const std::string& wal_socket);

// 'value' with quotes and backslashes doubled. INVALID_ARGUMENT when it holds a newline or NUL (no
// file can carry it).
absl::StatusOr<std::string> QuoteSetting(std::string_view value);
// Parses `name = value` lines as Postgres's guc-file.l does: quotes, escapes, comments, optional
// '='. Later lines win; include directives are skipped. INVALID_ARGUMENT names the line.
absl::StatusOr<SettingMap> ParseSettings(std::string_view text);
// The same, one setting after the other, include directives among them, until `line_of` fails.
absl::Status ReadSettingLines(
    std::string_view text,
    const std::function<absl::Status(const std::string& name, const std::string& value)>& line_of);

// `text`, in which each line is one setting, without the lines that set one of `names`.
std::string WithoutSettings(std::string_view text, const std::vector<std::string>& names);

struct ManagedSettings {
  SettingMap user;
  SettingMap agent;
};
absl::StatusOr<std::string> RenderManagedSettings(const ManagedSettings& settings);
// Reads a text that RenderManagedSettings made.
absl::StatusOr<ManagedSettings> ParseManagedSettings(std::string_view text);

// postgresql.conf with the managed block at its end: added when absent, moved to the end when a
// user appended lines after it, unchanged (byte for byte) when already right.
std::string WithManagedInclude(std::string_view postgresql_conf);

// Writes metal.conf (keeping the user's settings of an existing one; `initial` when there is none,
// without what postgresql.conf sets itself, but for wal_level = minimal) and the include block.
// Writes nothing that is already right. Idempotent, durable.
absl::Status InstallManagedSettings(const std::string& data_dir, const AgentSettings& agent,
                                    const SettingMap& initial = InitialUserSettings());

// Adds the include block to postgresql.conf where it is missing, not at the end, or of an older
// agent. Durable.
absl::Status EnsureManagedInclude(const std::string& data_dir);

// Changes settings of VerbSettings in the agent's part; nullopt removes one. Durable; writes
// nothing that is already so.
using SettingPatch = std::map<std::string, std::optional<std::string>>;
absl::Status PatchAgentPart(const std::string& data_dir, const SettingPatch& patch);

// An absent file is an empty set.
absl::StatusOr<ManagedSettings> LoadManagedSettings(const std::string& data_dir);
absl::Status StoreManagedSettings(const std::string& data_dir, const ManagedSettings& settings);

}  // namespace metal::pg
