#include "agent/assembly.h"

#include <unistd.h>

#include "agent/backup/postgres_source.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/privileges.h"
#include "agent/base/status.h"
#include "agent/disk/detached_call.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/pg/lease_guard.h"
#include "agent/uring/io_engine.h"
#include "agent/version.h"

namespace metal {
namespace {

constexpr absl::Duration kDataDiskPatience = absl::Seconds(2);
constexpr int kOomScore = -900;  // the postmaster inherits it; its children reset their own

// The roles that may log in, with their secrets: what PgBouncer checks passwords against. A secret
// whose time is over is none.
gate::RoleReader RolesOf(pg::SessionFactory connect) {
  return [connect = std::move(connect)]() -> absl::StatusOr<std::vector<gate::RoleSecret>> {
    METAL_ASSIGN_OR_RETURN(const auto session, connect());
    METAL_ASSIGN_OR_RETURN(
        const pg::SqlResult rows,
        session->Query("SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword "
                       "END AS secret FROM pg_authid WHERE rolcanlogin ORDER BY rolname",
                       absl::Seconds(5)));
    std::vector<gate::RoleSecret> roles;
    for (size_t row = 0; row < rows.rows.size(); ++row)
      roles.push_back({rows.Text(row, "rolname"), rows.Text(row, "secret")});
    return roles;
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<disk::PrivilegedHelper>> TakeIdentity(
    const base::AgentConfig& config) {
  METAL_ASSIGN_OR_RETURN(auto helper, disk::StartPrivilegedHelper());
  if (::geteuid() != 0) return helper;
  METAL_ASSIGN_OR_RETURN(const auto user, base::FindOsUser(config.os_user));
  for (const std::string& path : {config.state_dir, base::DirectoryOf(config.socket),
                                  base::DirectoryOf(config.wal_socket), config.pg_socket_dir}) {
    METAL_RETURN_IF_ERROR(base::ProvideDirectory(path, user, 0750));
  }
  // A disk that is dead or hangs is what the agent is there to report.
  for (const std::string& path :
       {config.repository_path, base::DirectoryOf(config.pg_data_dir), config.recorder_directory}) {
    if (path.empty()) continue;
    const absl::Status provided = base::ProvideDirectoryOnDisk(path, user, kDataDiskPatience);
    if (provided.ok()) continue;
    base::LogWarning("event=directory path={} message=\"{}\"", path,
                     std::string(provided.message()));
  }
  if (auto lowered = base::LowerOomScore(kOomScore); !lowered.ok()) {
    base::LogWarning("event=oom_score message=\"{}\"", lowered.ToString());
  }
  METAL_RETURN_IF_ERROR(base::BecomeUser(user));
  return helper;
}

void PublishIdentity(const base::AgentConfig& config, observe::StatusBoard& board) {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  std::string engine = "unavailable";
  std::string reason;
  auto kind = uring::ParseEngineKind(config.io_engine);
  auto choice = kind.ok() ? uring::MakeEngine(*kind, 8) : kind.status();
  if (choice.ok()) {
    engine = choice->engine->name();
    reason = choice->reason;
  } else {
    reason = std::string(choice.status().message());
  }
  board.Update([&](observe::NodeStatus& status) {
    status.node.node_id = config.node_id;
    status.node.cluster_id = config.cluster_id;
    status.node.hostname = host;
    status.node.agent_version = kAgentVersion;
    status.node.os_user = base::CurrentOsUser();
    status.node.agent_start = base::RealClock().Now();
    status.node.io_engine = engine;
    status.node.io_engine_reason = reason;
  });
}

absl::StatusOr<pg::DataDirectoryLock> LockDirectories(const base::AgentConfig& config) {
  METAL_ASSIGN_OR_RETURN(pg::DataDirectoryLock lock,
                         pg::DataDirectoryLock::Acquire(config.pg_data_dir, config.state_dir));
  disk::DetachedCall<absl::Status> call;
  const auto locked = call.Run(
      "data-lock", [lock] { return lock.LockDirectory(); }, kDataDiskPatience);
  if (locked && absl::IsAborted(*locked)) return *locked;
  if (locked && locked->ok()) return lock;
  base::LogWarning("event=data_directory message=\"{}\"",
                   locked ? std::string(locked->message()) : "the data disk does not answer");
  return lock;
}

pg::SessionFactory SessionsOf(const base::AgentConfig& config, absl::Duration statement_timeout) {
  pg::ConnectOptions options;
  options.socket_dir = config.pg_socket_dir;
  options.port = config.pg_port;
  options.user = config.pg_superuser;
  options.statement_timeout = statement_timeout;
  // What the agent writes (terms, heartbeats, roles) it writes also while others may not: a full
  // disk, or a user's own default.
  options.settings = {{"default_transaction_read_only", "off"}};
  return [options] { return pg::ConnectLibpq(options); };
}

std::unique_ptr<node::Lease> AttachLease(const base::AgentConfig& config, node::TermStore& terms,
                                         base::Clock& clock) {
  const std::string path = config.socket + ".lease";
  const auto start_guard = [&config, &clock, path](const pg::LeasePage& page) {
    return pg::StartLeaseGuard(page, path, {config.pg_data_dir, config.pg_bin_dir},
                               base::JoinPath(config.state_dir, "lease-guard.log"), clock);
  };
  auto lease = std::make_unique<node::Lease>(path, start_guard, clock);
  terms.AttachLease(*lease);
  return lease;
}

int RunLeaseGuard(const char* page, const char* data_dir, const char* bin_dir) {
  return pg::RunLeaseGuard(page, {data_dir, bin_dir}, base::RealClock());
}

pg::SupervisorOptions SupervisorOptionsOf(const base::AgentConfig& config,
                                          const node::TermStore& terms, node::Lease& lease,
                                          const pg::DataDirectoryLock& lock,
                                          const disk::DiskMonitor& disks,
                                          disk::PrivilegedHelper& helper) {
  pg::SupervisorOptions options;
  options.data_dir = config.pg_data_dir;
  options.state_dir = config.state_dir;
  options.socket_dir = config.pg_socket_dir;
  options.listen_addresses = config.pg_listen_addresses;
  options.port = config.pg_port;
  options.restart_max = config.pg_restart_max;
  options.restart_window = config.pg_restart_window;
  options.move_to_scope = [&helper, port = config.pg_port](pid_t pid) {
    absl::Status moved = helper.MoveToSystemdScope(pid, port, absl::Seconds(5));
    // Where there is neither systemd nor a control group to be made, its own session must do.
    if (absl::IsUnimplemented(moved) && !base::PathExists("/run/systemd/system")) {
      return absl::OkStatus();
    }
    return moved;
  };
  options.lock_directory = [lock] { return lock.LockDirectory(); };
  options.role_for_launch = [&terms, data_dir = config.pg_data_dir] {
    return node::DecideStartRole(terms, data_dir);
  };
  options.comes_back_as_standby = [data_dir = config.pg_data_dir] {
    return node::SharesCommits(data_dir);
  };
  options.make_room = [&config] { return node::MakeRoomToStart(config); };
  options.may_be_primary = [&terms] { return terms.Get().MayRunAsPrimary(); };
  options.check_drives = [&disks, data_dir = config.pg_data_dir] {
    return disks.CheckDrives(data_dir);
  };
  options.held_down = [&terms] { return node::HeldDown(terms.Get()); };
  options.before_standby_launch = [&lease] { lease.Disarm(); };
  return options;
}

absl::StatusOr<WalParts> StartWal(const base::AgentConfig& config, observe::StatusBoard& board,
                                  observe::EventLog& events, base::Clock& clock) {
  WalParts parts;
  if (config.repository_path.empty()) return parts;
  parts.archive = std::make_shared<backup::WalArchive>(
      backup::WalArchiveOptions{config.repository_path, config.state_dir}, clock, &events);
  backup::WalServerOptions options;
  options.socket_path = config.wal_socket;
  options.current_system_identifier = [&board] { return board.Get()->postgres.system_identifier; };
  METAL_ASSIGN_OR_RETURN(parts.server,
                         backup::WalServer::Start(std::move(options), parts.archive, clock));
  parts.leftovers = std::make_unique<node::LeftoverArchiver>(config, parts.archive);
  return parts;
}

std::unique_ptr<pg::HeartbeatWriter> StartHeartbeat(const base::AgentConfig& config,
                                                    const node::TermStore& terms, node::Node& node,
                                                    observe::EventLog& events,
                                                    observe::StatusBoard& board,
                                                    base::Clock& clock) {
  pg::HeartbeatOptions options;
  options.interval = config.pg_heartbeat_interval;
  options.order = [&terms, node_id = config.node_id]() -> std::optional<pg::TermOrder> {
    const node::TermRecord record = terms.Get();
    if (!record.MayRunAsPrimary()) return std::nullopt;
    return pg::TermOrder{record.term, node_id, record.orchestrator_id};
  };
  options.cluster_id = config.cluster_id;
  options.turn = &node.record_turn();
  options.found_weaker = [&events](const pg::RecordState& found) {
    node::Emit(events, observe::Severity::kWarning, "replication.synchronous_weaker", "postgres",
               fmt::format("synchronous_standby_names is \"{}\", which asks for less than what was "
                           "recorded, and was not set by SetSynchronousStandbys. HINT: set it with "
                           "metalctl; until then commits count on less",
                           found.in_force),
               {{"in_force", found.in_force}, {"recorded", pg::EncodeDurability(found.before)}});
  };
  auto heartbeat = std::make_unique<pg::HeartbeatWriter>(
      std::move(options), SessionsOf(config, absl::Seconds(5)), board, clock);
  heartbeat->Start();
  return heartbeat;
}

pg::MonitorOptions MonitorOptionsOf(const base::AgentConfig& config, const WalParts& wal,
                                    observe::StatusBoard& board, node::Node& node,
                                    pg::HeartbeatWriter& heartbeat) {
  pg::MonitorOptions options;
  options.cluster_id = config.cluster_id;
  options.after_round = [&heartbeat, &board, leftovers = wal.leftovers.get()] {
    heartbeat.Nudge();
    if (leftovers != nullptr) leftovers->Look(*board.Get());
  };
  options.tablespaces_changed = [&node] { node.RequestRefresh(); };
  if (wal.server != nullptr) {
    options.archive_error = [server = wal.server.get()] {
      return server->Statistics().last_push_error;
    };
  }
  return options;
}

void ReportStart(const base::AgentConfig& config, const std::string& address,
                 observe::EventLog& events) {
  node::Emit(events, observe::Severity::kInfo, "agent.started", config.node_id,
             fmt::format("agent {} serves {}", kAgentVersion, address));
  const auto score = base::OomScore();
  if (score.ok() && *score <= kOomScore) return;
  node::Emit(
      events, observe::Severity::kWarning, "agent.oom_unprotected", config.node_id,
      fmt::format("{}: the kernel may end PostgreSQL first when memory is short. HINT: start "
                  "the agent as root with CAP_SYS_RESOURCE, or set OOMScoreAdjust={} in its "
                  "unit",
                  score.ok() ? fmt::format("the OOM score adjustment is {}", *score)
                             : std::string(score.status().message()),
                  kOomScore));
}

absl::StatusOr<std::unique_ptr<TransferServer>> TransferServer::Start(
    const base::AgentConfig& config, observe::EventLog& events, node::Node& node,
    backup::CopyPace& pace, base::Clock& clock) {
  pg::ConnectOptions connect;
  connect.socket_dir = config.pg_socket_dir;
  connect.port = config.pg_port;
  connect.user = config.pg_superuser;
  std::unique_ptr<TransferServer> server(
      new TransferServer({.config = config,
                          .clock = clock,
                          .events = &events,
                          .open_source = backup::MakePostgresSource(connect),
                          .connect = SessionsOf(config, absl::ZeroDuration()),
                          .memory = &node.backup_memory(),
                          .throttle = &pace.throttle()}));
  if (config.transfer_listen.empty()) return server;
  TransferServer* const raw = server.get();
  transfer::ListenerOptions options;
  options.listen = config.transfer_listen;
  options.tls = {config.tls_certificate, config.tls_key, config.tls_client_ca};
  options.serve = [raw](transfer::Channel& channel) { raw->source_.Serve(channel); };
  METAL_ASSIGN_OR_RETURN(server->listener_, transfer::Listener::Start(std::move(options)));
  if (config.transfer_port_file.empty()) return server;
  METAL_RETURN_IF_ERROR(
      base::WriteFileDurably(config.transfer_port_file, server->listener_->address() + "\n", 0644));
  return server;
}

void TransferServer::Stop() {
  source_.Stop();
  if (listener_ != nullptr) listener_->Stop();
}

backup::CopyPaceOptions PaceOptionsOf(const base::AgentConfig& config) {
  return {.rate_limit = config.backup_rate_limit.value, .latency_max = config.backup_latency_max};
}

disk::DiskMonitorOptions DiskOptionsOf(const base::AgentConfig& config, backup::CopyPace& pace) {
  disk::DiskMonitorOptions options;
  options.node_id = config.node_id;
  options.probe_enabled = config.probe_enabled;
  options.schedule.read_interval = config.probe_read_interval;
  options.schedule.write_interval = config.probe_write_interval;
  options.limits.stall_after = config.probe_stall_after;
  options.reactions = disk::MakeReactionPolicy(config.disk_reaction, config.disk_reactions);
  options.postgres_log = config.state_dir + "/postgres.log";
  options.read_only_at = config.disk_read_only_at;
  options.unlisted_logs = config.disk_unlisted_logs;
  options.space_history = config.state_dir + "/space-history";
  options.learned_path = config.state_dir + "/learned-drives";
  options.record_path = config.state_dir + "/disks";
  options.probe_latencies = [&pace](const std::string& role,
                                    std::span<const absl::Duration> latencies) {
    if (role == "data") pace.Observe(latencies);
  };
  if (config.xfs_retry_for > absl::ZeroDuration()) {
    options.xfs_retries = disk::XfsRetryLimits{.timeout = config.xfs_retry_for};
  }
  return options;
}

absl::StatusOr<std::unique_ptr<gate::Gate>> MakeGate(const base::AgentConfig& config,
                                                     disk::PrivilegedHelper& helper,
                                                     observe::StatusBoard& board,
                                                     observe::EventLog& events) {
  gate::GateOptions options;
  options.directory = config.state_dir + "/gate";
  if (!config.gate_enabled) {
    gate::StopLeftDoor(options.directory, events);
    gate::StopLeftDoor(options.directory + "/read-only", events);
    return std::unique_ptr<gate::Gate>();
  }
  options.program = config.gate_pgbouncer;
  options.door.auth_type = config.gate_auth_type;
  options.door.pool_mode = config.gate_pool_mode;
  options.door.client_tls = config.gate_client_tls;
  options.door.certificate = config.gate_certificate;
  options.door.key = config.gate_key;
  options.door.server_tls = config.gate_server_tls;
  options.door.server_ca = config.gate_server_ca;
  options.door.max_client_conn = config.gate_max_client_conn;
  options.door.default_pool_size = config.gate_default_pool_size;
  options.door.hold_max = config.gate_hold_max;
  options.listen = config.gate_listen;
  options.read_only_listen = config.gate_read_only_listen;
  options.read_only_max_lag = config.gate_read_only_max_lag;
  options.local = {config.pg_socket_dir, config.pg_port};
  options.auth_file = config.gate_auth_file;
  options.read_roles = RolesOf(SessionsOf(config, absl::Seconds(5)));
  options.ping = gate::LibpqPing(config.pg_superuser);
  if (base::PathExists("/run/systemd/system")) {
    options.move_to_scope = [&helper, port = config.pg_port](pid_t pid) {
      const auto moved = helper.MoveToSystemdScope(pid, port, absl::Seconds(5));
      if (!moved.ok()) base::LogWarning("event=gate.scope message=\"{}\"", moved.ToString());
    };
  }
  METAL_ASSIGN_OR_RETURN(auto gate,
                         gate::Gate::Open(std::move(options), base::RealClock(), board, events));
  METAL_RETURN_IF_ERROR(gate->Begin());
  return gate;
}

}  // namespace metal
