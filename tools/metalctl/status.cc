#include <unistd.h>

#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

std::string RoleWord(v1::Role role) {
  const std::string word = EnumWord(v1::Role_Name(role), "ROLE_");
  return word == "unknown" ? "none" : word;
}

// " (12 s ago)" when a section is older than 5 s.
std::string Staleness(bool observed, const google::protobuf::Duration& age) {
  if (!observed) return " (not observed yet)";
  if (ToSeconds(age) < 5) return "";
  return fmt::format(" ({} ago)", FormatDuration(age));
}

void AddNode(const v1::NodeStatus& status, FactList& facts) {
  const auto& node = status.node();
  facts.Add("node",
            fmt::format("{} of {} on {}", node.node_id(), node.cluster_id(), node.hostname()));
  facts.Add("agent", fmt::format("{} since {}, runs as {}", node.agent_version(),
                                 FormatTime(node.agent_start_time()), node.os_user()));
  facts.Add("term", node.term() == 0
                        ? "none"
                        : fmt::format("{} held by {}, role wanted: {}", node.term(),
                                      node.term_orchestrator_id(), RoleWord(node.role_wanted())));
  if (node.fenced())
    facts.Add("FENCED", fmt::format("in term {}: {}", node.fence_term(), node.fence_reason()));
  facts.Add("I/O engine", node.io_engine_reason().empty()
                              ? node.io_engine()
                              : node.io_engine() + " (" + node.io_engine_reason() + ")");
}

void AddPostgres(const v1::NodeStatus& status, FactList& facts) {
  const auto& postgres = status.postgres();
  std::string state = EnumWord(v1::PostgresState_Name(postgres.state()), "POSTGRES_STATE_");
  if (!postgres.state_reason().empty()) state += ": " + postgres.state_reason();
  facts.Add("PostgreSQL",
            fmt::format("{} {}{}", postgres.version(), state,
                        Staleness(postgres.has_observe_age(), postgres.observe_age())));
  facts.Add("  data", postgres.data_directory());
  if (!postgres.start_progress().empty()) facts.Add("  start", postgres.start_progress());
  if (postgres.pid() == 0) return;
  facts.Add("  process",
            fmt::format("pid {}, port {}, socket in {}, since {}", postgres.pid(), postgres.port(),
                        postgres.socket_directory(), FormatTime(postgres.start_time())));
  facts.Add("  role", fmt::format("{}, timeline {}", RoleWord(postgres.role_observed()),
                                  postgres.timeline()));
  if (!postgres.in_recovery()) {
    facts.Add("  WAL", fmt::format("{} written, {} flushed", FormatLsn(postgres.current_lsn()),
                                   FormatLsn(postgres.flush_lsn())));
  }
  facts.Add("  clients",
            fmt::format("{} of {}", postgres.connections(), postgres.max_connections()));
  facts.Add("  checksums", postgres.data_checksums()
                               ? fmt::format("on, {} failures", postgres.checksum_failures())
                               : "off");
  if (postgres.settings_pending_restart()) facts.Add("  settings", "some wait for a restart");
}

void AddStandby(const v1::NodeStatus& status, FactList& facts) {
  if (!status.has_standby()) return;
  const auto& standby = status.standby();
  facts.Add("standby",
            fmt::format("receiver {}, replayed {}, flushed {}{}",
                        standby.receiver_state().empty() ? "none" : standby.receiver_state(),
                        FormatLsn(standby.replayed_lsn()), FormatLsn(standby.flushed_lsn()),
                        Staleness(standby.has_observe_age(), standby.observe_age())));
  facts.Add("  lag", fmt::format("{}, {} ({})",
                                 standby.has_lag_bytes() ? FormatBytes(standby.lag_bytes())
                                                         : "unknown bytes",
                                 standby.has_lag() ? FormatDuration(standby.lag()) : "unknown time",
                                 standby.lag_source()));
  if (standby.replay_paused()) facts.Add("  replay", standby.pause_state());
}

void AddArchive(const v1::NodeStatus& status, FactList& facts) {
  const auto& archive = status.archive();
  if (!archive.enabled()) {
    facts.Add("archive", "off");
    return;
  }
  facts.Add("archive",
            fmt::format("{} segments wait ({}), last {} at {}{}", archive.ready_segments(),
                        FormatBytes(archive.backlog_bytes()),
                        archive.last_archived_wal().empty() ? "none" : archive.last_archived_wal(),
                        FormatTime(archive.last_archived_time()),
                        Staleness(archive.has_observe_age(), archive.observe_age())));
  facts.Add("  error", archive.last_error());
}

std::string Followers(const v1::NodeStatus& status) {
  TextTable table({"STANDBY", "STATE", "SYNC", ">SENT", ">FLUSHED", ">REPLAYED", ">LAG", ">TIME"});
  for (const auto& follower : status.followers()) {
    table.AddRow({follower.application_name(), follower.state(), follower.sync_state(),
                  FormatLsn(follower.sent_lsn()), FormatLsn(follower.flush_lsn()),
                  FormatLsn(follower.replay_lsn()), FormatBytes(follower.lag_bytes()),
                  follower.has_lag() ? FormatDuration(follower.lag()) : "unknown"});
  }
  return table.empty() ? "" : "\n" + table.ToString();
}

std::string Disks(const v1::NodeStatus& status) {
  TextTable table(
      {"DISK", "HOLDS", "MODEL", ">SIZE", ">FREE", "HEALTH", ">READ P99", ">WRITE P99", "SMART"});
  for (const auto& disk : status.disks()) {
    for (const auto& probe : disk.probes()) {
      std::string health = EnumWord(v1::ProbeState_Name(probe.state()), "PROBE_STATE_");
      table.AddRow({disk.device(), probe.role(), disk.model(), FormatBytes(disk.size_bytes()),
                    FormatBytes(disk.filesystem_free_bytes()), health,
                    probe.read().count() == 0 ? "" : FormatLatency(probe.read().p99()),
                    probe.write().count() == 0 ? "" : FormatLatency(probe.write().p99()),
                    disk.smart().supported()
                        ? fmt::format("0x{:02x}", disk.smart().critical_warning())
                        : "unsupported"});
    }
  }
  return table.empty() ? "" : "\n" + table.ToString();
}

std::string Backups(const v1::NodeStatus& status) {
  const auto& backups = status.backups();
  if (!backups.error().empty()) return "\nbackups: " + backups.error() + "\n";
  TextTable table(
      {"BACKUP", "STATE", "TAKEN", ">SIZE", ">STORED", ">RATIO", ">RATE", "CODEC", "ENGINE"});
  for (const auto& backup : backups.latest()) {
    const double ratio =
        backup.stored_bytes() == 0
            ? 0
            : static_cast<double>(backup.size_bytes()) / static_cast<double>(backup.stored_bytes());
    table.AddRow({backup.name().substr(backup.name().find('/') + 1),
                  EnumWord(v1::BackupState_Name(backup.state()), "BACKUP_STATE_"),
                  FormatTime(backup.stop_time()), FormatBytes(backup.size_bytes()),
                  FormatBytes(backup.stored_bytes()), fmt::format("{:.2f}x", ratio),
                  FormatRate(backup.bytes_per_second()), backup.codec(), backup.io_engine()});
  }
  return table.empty() ? "\nno backups yet\n" : "\n" + table.ToString();
}

std::string Faults(const v1::NodeStatus& status) {
  std::string out;
  for (const auto& fault : status.faults()) {
    out += fmt::format("FAULT {} {} since {}: {}\n", fault.fault_class(), fault.subject(),
                       FormatTime(fault.since_time()), fault.message());
  }
  return out.empty() ? out : "\n" + out;
}

}  // namespace

std::string StatusText(const v1::NodeStatus& status) {
  FactList facts;
  AddNode(status, facts);
  AddPostgres(status, facts);
  AddStandby(status, facts);
  AddArchive(status, facts);
  if (status.has_operation()) {
    v1::Operation operation;
    operation.set_kind(status.operation().kind());
    operation.mutable_progress()->set_phase(status.operation().phase());
    operation.mutable_progress()->set_done_bytes(status.operation().done_bytes());
    operation.mutable_progress()->set_total_bytes(status.operation().total_bytes());
    operation.mutable_progress()->set_bytes_per_second(status.operation().bytes_per_second());
    facts.Add("running", status.operation().name() + " " + ProgressLine(operation, 0));
  }
  return facts.ToString() + Followers(status) + Disks(status) + Backups(status) + Faults(status);
}

int ShowStatus(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetStatusResponse response;
  if (auto status = client.host->GetStatus(&context, {}, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response.status());
  } else {
    fmt::print("{}", StatusText(response.status()));
  }
  return kExitOk;
}

int WatchStatus(const Client& client) {
  grpc::ClientContext context;
  auto reader = client.host->WatchStatus(&context, {});
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  v1::WatchStatusResponse response;
  while (reader->Read(&response)) {
    if (client.json()) {
      Client::PrintJson(response.status(), false);
      continue;
    }
    fmt::print("{}{}{}", terminal ? "\033[H\033[2J" : "", StatusText(response.status()),
               terminal ? "" : "---\n");
    std::fflush(stdout);
  }
  const auto status = reader->Finish();
  return status.ok() ? kExitOk : client.Fail(status);
}

int ShowCapabilities(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetCapabilitiesResponse response;
  if (auto status = client.host->GetCapabilities(&context, {}, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  FactList facts;
  facts.Add("agent", response.agent_version());
  facts.Add("PostgreSQL", response.postgres_version().empty() ? "programs are missing"
                                                              : response.postgres_version());
  std::string engines, codecs;
  for (const auto& engine : response.io_engines())
    engines += (engines.empty() ? "" : ", ") + engine;
  for (const auto& codec : response.codecs()) codecs += (codecs.empty() ? "" : ", ") + codec;
  facts.Add("I/O engines", engines);
  facts.Add("codecs", codecs);
  for (const auto& [name, value] :
       std::map<std::string, std::string>(response.features().begin(), response.features().end())) {
    facts.Add(name, value);
  }
  facts.Add("RPCs", std::to_string(response.rpcs_size()));
  fmt::print("{}", facts.ToString());
  return kExitOk;
}

}  // namespace metal::ctl
