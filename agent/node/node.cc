#include "agent/node/node.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/steps/synchronous_steps.h"
#include "agent/pg/replication.h"

namespace metal::node {

namespace {

constexpr absl::Duration kLookTimeout = absl::Seconds(2);
constexpr absl::Duration kWaitSlice = absl::Milliseconds(250);
constexpr absl::Duration kCleaningGrace = absl::Seconds(2);  // after the end began

std::string Parameter(const Operation& operation, const std::string& name) {
  const auto parameter = operation.spec.parameters.find(name);
  return parameter == operation.spec.parameters.end() ? "" : parameter->second;
}

absl::StatusOr<absl::Duration> DurationParameter(const Operation& operation,
                                                 const std::string& name) {
  absl::Duration duration;
  if (absl::ParseDuration(Parameter(operation, name), &duration)) return duration;
  return base::Error(absl::StatusCode::kInternal, "the journal has no {} that can be read", name);
}

}  // namespace

std::string_view StopModeName(StopMode mode) {
  switch (mode) {
    case StopMode::kSmart:
      return "smart";
    case StopMode::kFast:
      return "fast";
    case StopMode::kImmediate:
      return "immediate";
  }
  return "unknown";
}

pg::AgentSettings AgentSettingsOf(const base::AgentConfig& config) {
  pg::AgentSettings settings;
  settings.listen_addresses = config.pg_listen_addresses;
  settings.port = config.pg_port;
  settings.socket_dir = config.pg_socket_dir;
  settings.cluster_name = config.cluster_id;
  settings.archiving = !config.repository_path.empty();
  settings.wal_helper = config.wal_helper;
  settings.wal_socket = config.wal_socket;
  return settings;
}

pg::StartRole DecideStartRole(const TermRecord& record,
                              const absl::StatusOr<pg::ControlFile>& control) {
  if (!record.MayRunAsPrimary() || !control.ok()) return pg::StartRole::kStandby;
  switch (control->state) {
    case pg::ControlState::kShutDown:
    case pg::ControlState::kShuttingDown:
    case pg::ControlState::kInCrashRecovery:
    case pg::ControlState::kInProduction:
      return pg::StartRole::kPrimary;
    case pg::ControlState::kStartingUp:
    case pg::ControlState::kShutDownInRecovery:
    case pg::ControlState::kInArchiveRecovery:
      return pg::StartRole::kStandby;
  }
  return pg::StartRole::kStandby;
}

pg::StartRole DecideStartRole(const TermStore& terms, const std::string& data_dir) {
  // A restored copy carries the pg_control of the server that was backed up. Whether one is there
  // must be known before anything is opened for writes.
  const auto restored = base::Exists(base::JoinPath(data_dir, "backup_label"));
  if (!restored.ok() || *restored) return pg::StartRole::kStandby;
  return DecideStartRole(terms.Get(), pg::ReadControlFile(data_dir));
}

bool SharesCommits(const std::string& data_dir) {
  const auto settings = pg::LoadManagedSettings(data_dir);
  if (!settings.ok()) return true;
  const auto names = settings->agent.find(kSynchronousSetting);
  return names != settings->agent.end() && !names->second.empty();
}

Node::Node(NodeParts parts)
    : parts_(std::move(parts)),
      backup_memory_(parts_.config.backup_memory),
      watchdog_(parts_.helper, parts_.config.disk_watchdog, parts_.config.disk_watchdog_timeout,
                parts_.events, parts_.clock),
      cut_(parts_.config.disk_cut_clients ? parts_.helper : nullptr, parts_.config.pg_port,
           parts_.config.socket + ".cut", parts_.clock),
      sick_server_({.helper = parts_.helper,
                    .port = parts_.config.pg_port,
                    .cut = cut_,
                    .events = parts_.events,
                    .clock = parts_.clock,
                    .note = [this](const observe::Fault& fault, const std::string& done) {
                      parts_.disks.NoteAction(fault.fault_class, fault.subject, done);
                    }}) {}

Node::~Node() {
  StopWaiting();
  // Bodies use this object.
  parts_.operations.Drain();
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  role_watch_.Join();
  sick_stop_.Join();
  directory_refresher_.Join();
  repository_refresher_.Join();
  cleaner_.Join();
  room_keeper_.Join();
}

// These are safe to run from the beginning: each first looks at what is already done, only reads,
// or removes what it left (a restore).
void Node::RegisterResumers() {
  parts_.operations.RegisterResumer(
      "StopPostgres", [this](const Operation& operation) -> absl::StatusOr<OperationBody> {
        StopPostgresRequest request;
        const std::string mode = Parameter(operation, "mode");
        if (mode == "smart") request.mode = StopMode::kSmart;
        if (mode == "immediate") request.mode = StopMode::kImmediate;
        METAL_ASSIGN_OR_RETURN(request.timeout, DurationParameter(operation, "timeout"));
        request.escalate = Parameter(operation, "escalate") == "true";
        return OperationBody(
            [this, request](OperationContext& context) { return RunStop(context, request); });
      });
  parts_.operations.RegisterResumer(
      "StartPostgres", [this](const Operation& operation) -> absl::StatusOr<OperationBody> {
        StartPostgresRequest request;
        METAL_ASSIGN_OR_RETURN(request.no_progress_timeout,
                               DurationParameter(operation, "no_progress_timeout"));
        return OperationBody(
            [this, request](OperationContext& context) { return RunStart(context, request); });
      });
  parts_.operations.RegisterResumer(
      "VerifyBackup", [this](const Operation& operation) -> absl::StatusOr<OperationBody> {
        VerifyBackupRequest request;
        request.name = operation.spec.subject;
        request.rehearse = Parameter(operation, "rehearse") == "true";
        request.scratch_directory = Parameter(operation, "scratch_directory");
        return OperationBody(
            [this, request](OperationContext& context) { return RunVerify(context, request); });
      });
  parts_.operations.RegisterResumer(
      "RestoreBackup", [this](const Operation& operation) { return ResumeRestore(operation); });
  parts_.operations.RegisterResumer(
      "Clone", [this](const Operation& operation) { return ResumeClone(operation); });
}

void Node::Begin() {
  RegisterResumers();
  LoadRewindFloor();
  // Before any operation of ours rehearses again.
  auto left = backup::FindLeftRehearsals(parts_.config.state_dir);
  parts_.operations.Recover();
  role_watch_ = base::Thread("role-watch", [this] { WatchRole(); });
  directory_refresher_ =
      base::Thread("node-refresh", [this] { RefreshLoop(&Node::RefreshDirectories); });
  repository_refresher_ =
      base::Thread("node-backups", [this] { RefreshLoop(&Node::RefreshBackups); });
  room_keeper_ = base::Thread("node-room", [this] { RefreshLoop(&Node::KeepRoom); });
  if (left.empty()) return;
  cleaner_ =
      base::Thread("node-cleaner", [this, left = std::move(left)] { RemoveLeftRehearsals(left); });
}

RoleState Node::CurrentRoleState() {
  return ClassifyRole(parts_.terms.Get(), parts_.board.Get()->postgres);
}

RoleState Node::SettledRoleState() {
  const auto status = parts_.board.Get();
  observe::PostgresSection postgres = status->postgres;
  if (parts_.supervisor.postmaster() != nullptr) {
    const RoleState published = ClassifyRole(parts_.terms.Get(), postgres);
    if (published != RoleState::kUnsettled) return published;
    // Running, but the monitor has not looked at it yet: ask it.
    auto session = parts_.connect();
    if (!session.ok()) return published;
    const auto state = pg::QueryServerState(**session, kLookTimeout);
    if (!state.ok()) return published;
    postgres.state = observe::PostgresState::kRunning;
    postgres.role_observed = state->in_recovery ? observe::Role::kStandby : observe::Role::kPrimary;
    return ClassifyRole(parts_.terms.Get(), postgres);
  }
  // Nothing runs. A half-made directory is none: it may be made again. One that is half rewound is
  // one: it holds this node's data.
  const auto directory = pg::InspectDataDirectory(parts_.config.pg_data_dir);
  if (!directory.ok()) return RoleState::kUnsettled;
  const bool crashed = postgres.state == observe::PostgresState::kCrashed;
  postgres.state =
      directory->kind == pg::DataDirectoryKind::kCluster || directory->half_rewound()
          ? (crashed ? observe::PostgresState::kCrashed : observe::PostgresState::kStopped)
          : observe::PostgresState::kNoDataDirectory;
  postgres.role_observed = observe::Role::kUnknown;
  return ClassifyRole(parts_.terms.Get(), postgres);
}

absl::Status Node::ExplainDirectory(RoleRequest request) {
  const auto directory = pg::InspectDataDirectory(parts_.config.pg_data_dir);
  if (!directory.ok()) return directory.status();
  if (request == RoleRequest::kInitDataDirectory || request == RoleRequest::kRestoreBackup) {
    return pg::CheckCreatable(*directory, ::geteuid());
  }
  if (parts_.supervisor.postmaster() != nullptr) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const pg::PostgresVersion version, parts_.install.Version());
  return pg::CheckStartable(*directory, version, ::geteuid());
}

absl::Status Node::Admit(RoleRequest request) {
  const RoleState state = SettledRoleState();
  const absl::Status admitted = CheckRequest(state, request);
  if (!admitted.ok() && state != RoleState::kFenced) {
    const absl::Status directory = ExplainDirectory(request);
    if (!directory.ok()) {
      return base::Annotate(directory, fmt::format("{} refused", RoleRequestName(request)));
    }
  }
  const auto reason = base::GetReason(admitted);
  if (!reason || reason->reason != "FENCED") return admitted;
  return base::Annotate(Fenced(parts_.terms.Get()),
                        fmt::format("{} refused", RoleRequestName(request)));
}

RoleStepContext Node::StepsOf(OperationContext& context) {
  return {.clock = parts_.clock,
          .supervisor = parts_.supervisor,
          .connect = parts_.connect,
          .data_dir = parts_.config.pg_data_dir,
          .progress = context.progress,
          .may_launch = [this] { return RefuseOnSickDisk(); }};
}

OperationSpec Node::Spec(const RequestContext& context, std::string kind, std::string subject,
                         OperationLane lane) const {
  OperationSpec spec;
  spec.kind = std::move(kind);
  spec.subject = std::move(subject);
  spec.lane = lane;
  spec.request = context;
  return spec;
}

absl::StatusOr<OperationResult> Node::RunRoleChange(OperationSpec spec, OperationBody body) {
  const RequestContext context = spec.request;
  METAL_ASSIGN_OR_RETURN(const Operation operation,
                         parts_.operations.Start(std::move(spec), std::move(body)));
  return AwaitRoleChange(operation, context);
}

absl::StatusOr<std::optional<OperationResult>> Node::JoinRoleChange(const RequestContext& context) {
  METAL_ASSIGN_OR_RETURN(const std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (!earlier) return std::optional<OperationResult>();
  METAL_ASSIGN_OR_RETURN(OperationResult result, AwaitRoleChange(*earlier, context));
  return std::optional<OperationResult>(std::move(result));
}

void Node::StopWaiting() {
  base::MutexLock lock(mutex_);
  if (!no_waiting_since_) no_waiting_since_ = parts_.clock.Monotonic();
}

bool Node::EndIsDue() {
  base::MutexLock lock(mutex_);
  return no_waiting_since_ && parts_.clock.Monotonic() - *no_waiting_since_ > kCleaningGrace;
}

bool Node::ShouldStopWaiting(const std::function<bool()>& caller_left) {
  if (caller_left && caller_left()) return true;
  base::MutexLock lock(mutex_);
  return no_waiting_since_.has_value();
}

absl::StatusOr<OperationResult> Node::AwaitRoleChange(const Operation& started,
                                                      const RequestContext& context) {
  Operation operation = started;
  while (!operation.done() && !ShouldStopWaiting(context.caller_left)) {
    METAL_ASSIGN_OR_RETURN(operation, parts_.operations.Wait(started.name, kWaitSlice));
  }
  if (!operation.done()) {
    return base::WithReason(
        base::Error(absl::StatusCode::kDeadlineExceeded,
                    "{} goes on as {} ({}). HINT: repeat the call with the same request_id, or "
                    "metalctl op wait {}",
                    operation.spec.kind, operation.name,
                    operation.progress.phase.empty() ? "starting" : operation.progress.phase,
                    operation.name),
        {.reason = "ACTION_IN_PROGRESS",
         .metadata = {{"holder", operation.name}, {"holder_kind", operation.spec.kind}}});
  }
  if (operation.state != OperationState::kSucceeded) return operation.error;
  return operation.result;
}

}  // namespace metal::node
