#include "agent/node/steps/source_steps.h"

#include <algorithm>
#include <csignal>
#include <string_view>
#include <vector>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/proc.h"
#include "agent/base/process_handle.h"
#include "agent/base/status.h"
#include "agent/pg/replication.h"
#include "agent/pg/settings.h"

namespace metal::node {
namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kReceiverTimeout = absl::Seconds(10);
constexpr absl::Duration kReloadTimeout = absl::Seconds(10);
constexpr absl::Duration kRestore = absl::Seconds(1);
constexpr int kReloadableRestoreCommand = 140000;
constexpr std::string_view kIdleReceiver = "waiting";
constexpr const char* kAutoConf = "postgresql.auto.conf";

// What postgresql.auto.conf says about sources would win over metal.conf.
absl::Status DropSourceOverrides(RoleStepContext& context, pg::SqlSession* session) {
  const std::string path = base::JoinPath(context.data_dir, kAutoConf);
  const auto text = base::ReadFile(path);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (!text.ok()) return text.status();
  METAL_ASSIGN_OR_RETURN(const pg::SettingMap settings, pg::ParseSettings(*text));
  std::vector<std::string> present;
  for (const auto& [name, value] : pg::FollowNobody()) {
    if (settings.contains(name)) present.push_back(name);
  }
  if (present.empty()) return absl::OkStatus();
  if (session == nullptr) {
    return base::WriteFileDurably(path, pg::WithoutSettings(*text, present), 0600);
  }
  for (const std::string& name : present) {
    METAL_RETURN_IF_ERROR(
        session->Query(fmt::format("ALTER SYSTEM RESET {}", name), kQuery).status());
  }
  return absl::OkStatus();
}

// Reloads and waits until the server has loaded `wanted`.
absl::Status LoadSettings(RoleStepContext& context, pg::SqlSession& session,
                          const pg::SettingMap& wanted) {
  METAL_RETURN_IF_ERROR(session.Query("SELECT pg_reload_conf()", kQuery).status());
  return PollUntil(context, kReloadTimeout, "the server did not load its new source",
                   [&]() -> absl::StatusOr<bool> {
                     for (const auto& [name, value] : wanted) {
                       METAL_ASSIGN_OR_RETURN(const std::string loaded, ShowSetting(session, name));
                       if (loaded != value) return false;
                     }
                     return true;
                   });
}

// A receiver whose stream has ended, because the source's history parted from what is here, waits
// for a new order, and the server does not end it when its source is taken away: nobody but us
// does.
absl::Status EndIdleReceiver(pg::SqlSession& session, int pid) {
  const auto process = base::ProcessHandle::Open(pid);
  if (!process.ok()) return absl::OkStatus();  // it has ended meanwhile
  // Asked again: the process that is held now is the one that was named.
  METAL_ASSIGN_OR_RETURN(const auto receiver, pg::QueryReceiver(session, kQuery));
  if (!receiver || receiver->pid != pid || receiver->status != kIdleReceiver) {
    return absl::OkStatus();
  }
  const absl::Status sent = (*process)->Signal(SIGTERM);
  return absl::IsNotFound(sent) ? absl::OkStatus() : sent;
}

absl::Status AwaitNoReceiver(RoleStepContext& context, pg::SqlSession& session) {
  return PollUntil(
      context, kReceiverTimeout, "the WAL receiver did not end", [&]() -> absl::StatusOr<bool> {
        METAL_ASSIGN_OR_RETURN(const auto receiver, pg::QueryReceiver(session, kQuery));
        if (receiver && receiver->status == kIdleReceiver) {
          METAL_RETURN_IF_ERROR(EndIdleReceiver(session, receiver->pid));
        }
        return !receiver.has_value();
      });
}

// Whether a restore_command still runs, after a moment in which one that is well has ended. A
// reload does not end it, nothing is replayed meanwhile, and the server does not outlive its being
// killed.
absl::StatusOr<bool> RestoreHangs(RoleStepContext& context, pg::SqlSession& session) {
  METAL_ASSIGN_OR_RETURN(
      const pg::SqlResult startup,
      session.Query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'", kQuery));
  const auto pid = static_cast<pid_t>(startup.Int(0, "pid").value_or(0));
  if (pid == 0) return false;
  const absl::Status ended =
      PollUntil(context, kRestore, "restore_command did not end", [&]() -> absl::StatusOr<bool> {
        return std::ranges::none_of(base::ListProcesses(), [pid](pid_t each) {
          const auto stat = base::ReadProcStat(each);
          return stat.ok() && stat->parent == pid;
        });
      });
  return absl::IsDeadlineExceeded(ended) ? absl::StatusOr<bool>(true)
         : ended.ok()                    ? absl::StatusOr<bool>(false)
                                         : ended;
}

}  // namespace

absl::Status ClearSources(RoleStepContext& context, pg::SqlSession& session) {
  METAL_RETURN_IF_ERROR(pg::PatchAgentPart(context.data_dir, pg::FollowNobody()));
  for (const char* name : {"primary_conninfo", "restore_command"}) {
    METAL_ASSIGN_OR_RETURN(const std::string value, ShowSetting(session, name));
    if (value.empty()) continue;
    METAL_RETURN_IF_ERROR(base::Annotate(
        session.Query(fmt::format("ALTER SYSTEM SET {} TO ''", name), kQuery).status(),
        fmt::format("clear {}", name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> StopReceiving(RoleStepContext& context, pg::SqlSession& session) {
  context.progress.BeginPhase("stopping the WAL receiver");
  METAL_RETURN_IF_ERROR(ClearSources(context, session));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.sources_cleared"));
  const bool reloadable = session.server_version() >= kReloadableRestoreCommand;
  pg::SettingMap cleared = {{"primary_conninfo", ""}};
  if (reloadable) cleared["restore_command"] = "";
  METAL_RETURN_IF_ERROR(LoadSettings(context, session, cleared));
  METAL_RETURN_IF_ERROR(AwaitNoReceiver(context, session));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.receiver_stopped"));
  METAL_ASSIGN_OR_RETURN(const std::string restore, ShowSetting(session, "restore_command"));
  if (!restore.empty()) return true;
  METAL_ASSIGN_OR_RETURN(const bool hangs, RestoreHangs(context, session));
  if (hangs) base::LogWarning("event=begin_term message=\"restore_command hangs: restarting\"");
  return hangs;
}

absl::Status ClearSourcesOffline(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, kAutoConf);
  auto text = base::ReadFile(path);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (!text.ok()) return text.status();
  METAL_RETURN_IF_ERROR(pg::PatchAgentPart(data_dir, pg::FollowNobody()));
  METAL_ASSIGN_OR_RETURN(pg::SettingMap settings, pg::ParseSettings(*text));
  std::string added;
  for (const char* name : {"primary_conninfo", "restore_command"}) {
    const auto setting = settings.find(name);
    if (setting == settings.end() || !setting->second.empty()) {
      added += fmt::format("{} = ''\n", name);
    }
  }
  if (added.empty()) return absl::OkStatus();
  if (!text->empty() && text->back() != '\n') *text += '\n';
  return base::WriteFileDurably(path, *text + added, 0600);
}

absl::Status FollowSource(RoleStepContext& context, pg::SqlSession* session,
                          const pg::ReplicationSource& source) {
  const pg::SettingPatch patch = pg::FollowSettings(source);
  METAL_RETURN_IF_ERROR(pg::PatchAgentPart(context.data_dir, patch));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.source_written"));
  METAL_RETURN_IF_ERROR(DropSourceOverrides(context, session));
  if (session == nullptr) return context.supervisor.Reload();
  return LoadSettings(context, *session,
                      {{"primary_conninfo", patch.at("primary_conninfo").value_or("")},
                       {"primary_slot_name", patch.at("primary_slot_name").value_or("")}});
}

absl::Status StreamUnderOwnName(RoleStepContext& context, pg::SqlSession& session,
                                const std::string& node_id, absl::Duration stream_patience) {
  METAL_ASSIGN_OR_RETURN(pg::ManagedSettings settings, pg::LoadManagedSettings(context.data_dir));
  const std::string before = settings.agent["primary_conninfo"];
  const std::string own = pg::WithOwnName(before, node_id);
  METAL_ASSIGN_OR_RETURN(const std::string in_force, ShowSetting(session, "primary_conninfo"));
  if (own == before && in_force != pg::WithOwnName(in_force, node_id)) {
    METAL_RETURN_IF_ERROR(LoadSettings(context, session, {{"primary_conninfo", own}}));
  }
  if (own != before) {
    METAL_RETURN_IF_ERROR(pg::PatchAgentPart(context.data_dir, {{"primary_conninfo", own}}));
    if (in_force != before) return absl::OkStatus();  // stopped: the next start takes it
    METAL_RETURN_IF_ERROR(LoadSettings(context, session, {{"primary_conninfo", own}}));
  }
  if (stream_patience <= absl::ZeroDuration()) return absl::OkStatus();
  // The old receiver may still run for a moment.
  const std::string question = fmt::format(
      "SELECT count(*) > 0 AS streams FROM pg_stat_wal_receiver WHERE status = 'streaming' AND "
      "position('{}' IN conninfo) = 0",
      pg::kUncountedPrefix);
  return PollUntil(context, stream_patience, "it does not stream under its own name",
                   [&]() -> absl::StatusOr<bool> {
                     METAL_ASSIGN_OR_RETURN(const pg::SqlResult row,
                                            session.Query(question, kQuery));
                     return row.Bool(0, "streams");
                   });
}

absl::Status StopReceiver(RoleStepContext& context, pg::SqlSession& session) {
  METAL_ASSIGN_OR_RETURN(const std::string source, ShowSetting(session, "primary_conninfo"));
  METAL_ASSIGN_OR_RETURN(const std::string slot, ShowSetting(session, "primary_slot_name"));
  METAL_ASSIGN_OR_RETURN(const pg::ManagedSettings settings,
                         pg::LoadManagedSettings(context.data_dir));
  // A source that somebody else wrote is kept here, for StartReceiver.
  if (!source.empty() && !settings.agent.contains("primary_conninfo")) {
    pg::SettingPatch patch = {{"primary_conninfo", source}};
    if (!slot.empty()) patch["primary_slot_name"] = slot;
    METAL_RETURN_IF_ERROR(pg::PatchAgentPart(context.data_dir, patch));
  }
  context.progress.BeginPhase("stopping the WAL receiver");
  METAL_RETURN_IF_ERROR(session.Query("ALTER SYSTEM SET primary_conninfo TO ''", kQuery).status());
  METAL_RETURN_IF_ERROR(LoadSettings(context, session, {{"primary_conninfo", ""}}));
  return AwaitNoReceiver(context, session);
}

absl::Status StartReceiver(RoleStepContext& context, pg::SqlSession& session) {
  METAL_ASSIGN_OR_RETURN(pg::ManagedSettings settings, pg::LoadManagedSettings(context.data_dir));
  const std::string source = settings.agent["primary_conninfo"];
  if (source.empty()) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "this node follows nobody: nothing was said since its term began. HINT: "
                    "metalctl follow"),
        {"NO_SOURCE", {}});
  }
  context.progress.BeginPhase("starting the WAL receiver");
  METAL_RETURN_IF_ERROR(DropSourceOverrides(context, &session));
  return LoadSettings(
      context, session,
      {{"primary_conninfo", source}, {"primary_slot_name", settings.agent["primary_slot_name"]}});
}

}  // namespace metal::node
