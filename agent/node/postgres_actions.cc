// Node's verbs for the server's life: initdb, start, stop, restart.
#include <unistd.h>

#include "absl/strings/str_split.h"
#include "agent/base/fault_point.h"
#include "agent/base/status.h"
#include "agent/node/database_faults.h"
#include "agent/node/node.h"
#include "agent/pg/hba.h"
#include "agent/pg/initdb.h"

namespace metal::node {

namespace {

constexpr absl::Duration kShortestTimeout = absl::Milliseconds(100);
constexpr absl::Duration kLongestTimeout = absl::Hours(24);
constexpr absl::Duration kStartPoll = absl::Milliseconds(200);
constexpr int kStartAttempts = 3;

absl::Status CheckTimeout(std::string_view name, absl::Duration timeout) {
  if (timeout >= kShortestTimeout && timeout <= kLongestTimeout) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "{} is {}. HINT: from 100 ms to 24 h; leave it unset for the default", name,
                     absl::FormatDuration(timeout));
}

pg::StopMode PgMode(StopMode mode) {
  switch (mode) {
    case StopMode::kSmart:
      return pg::StopMode::kSmart;
    case StopMode::kFast:
      return pg::StopMode::kFast;
    case StopMode::kImmediate:
      return pg::StopMode::kImmediate;
  }
  return pg::StopMode::kFast;
}

std::string RoleText(pg::StartRole role) {
  return role == pg::StartRole::kPrimary ? "primary" : "standby";
}

pg::HbaOptions HbaOf(const base::AgentConfig& config) {
  pg::HbaOptions options;
  options.superuser = config.pg_superuser;
  options.os_user = config.os_user;
  if (!config.replication_password_file.empty()) {
    options.replication_user = config.replication_user;
    options.replication_networks =
        absl::StrSplit(config.replication_networks, ' ', absl::SkipEmpty());
  }
  return options;
}

}  // namespace

absl::StatusOr<Operation> Node::InitDataDirectory(const RequestContext& context,
                                                  const InitDataDirectoryRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kInitDataDirectory));
  const uint64_t segment = request.wal_segment_bytes;
  if (segment != 0 &&
      (segment < base::kMiB || segment > base::kGiB || (segment & (segment - 1)) != 0)) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "wal_segment_bytes is {}. HINT: a power of two from 1 MiB to 1 GiB",
                       segment);
  }
  METAL_RETURN_IF_ERROR(CheckTornPages(*parts_.board.Get(), request.settings));
  OperationSpec spec = Spec(context, "InitDataDirectory", parts_.config.pg_data_dir);
  spec.parameters = {{"locale", request.locale.empty() ? "C.UTF-8" : request.locale},
                     {"encoding", request.encoding.empty() ? "UTF8" : request.encoding}};
  if (segment != 0) spec.parameters["wal_segment_bytes"] = fmt::format("{}", segment);
  for (const auto& [name, value] : request.settings) spec.parameters["setting." + name] = value;
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunInit(operation, request);
  });
}

absl::StatusOr<OperationResult> Node::RunInit(OperationContext& context,
                                              const InitDataDirectoryRequest& request) {
  const base::AgentConfig& config = parts_.config;
  pg::InitdbOptions options;
  options.data_dir = config.pg_data_dir;
  options.wal_dir = config.pg_wal_dir;
  options.superuser = config.pg_superuser;
  options.superuser_password = request.superuser_password;
  if (!request.encoding.empty()) options.encoding = request.encoding;
  if (!request.locale.empty()) options.locale = request.locale;
  if (request.wal_segment_bytes != 0) options.wal_segment_size = {request.wal_segment_bytes};
  options.settings = AgentSettingsOf(config);
  options.hba = HbaOf(config);
  options.cancelled = [&] { return context.progress.cancelled(); };
  context.progress.BeginPhase("creating the data directory");
  const auto make = [&]() -> absl::Status {
    METAL_RETURN_IF_ERROR(parts_.terms.DropPrimaryRole());
    METAL_RETURN_IF_ERROR(base::FaultPoint("node.before_initdb"));
    ForgetTerms();
    METAL_RETURN_IF_ERROR(pg::CreateDataDirectory(parts_.install, options));
    if (request.settings.empty()) return absl::OkStatus();
    context.progress.BeginPhase("applying settings");
    pg::ApplyConfigRequest apply;
    for (const auto& [name, value] : request.settings) apply.settings[name] = value;
    const absl::Status applied = parts_.config_editor.Apply(apply).status();
    if (applied.ok()) return absl::OkStatus();
    // All or nothing: what was made a moment ago, and never started, goes again.
    METAL_RETURN_IF_ERROR(pg::WriteIncompleteSentinel(config.pg_data_dir, "initdb"));
    METAL_RETURN_IF_ERROR(pg::RemoveInitdbLeftovers(config.pg_data_dir));
    return base::Annotate(applied, "initialize the data directory");
  };
  const absl::Status made =
      parts_.supervisor.WithServerStopped("initialize the data directory", make);
  METAL_RETURN_IF_ERROR(made);
  parts_.disks.NoteDrivesAnew();
  ForgetRewind();
  METAL_RETURN_IF_ERROR(base::FaultPoint("node.after_initdb"));
  if (parts_.data_lock) METAL_RETURN_IF_ERROR(parts_.data_lock->LockDirectory());
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(config.pg_data_dir));
  METAL_ASSIGN_OR_RETURN(const pg::PostgresVersion version, parts_.install.Version());
  RequestRefresh();
  return OperationResult{"",
                         {{"data_directory", config.pg_data_dir},
                          {"version", version.text},
                          {"system_identifier", fmt::format("{}", control.system_identifier)}}};
}

absl::Status Node::RefuseOnSickDisk() const {
  const auto sick = SickDisk();
  if (!sick || !parts_.terms.Get().FencedForDisk()) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "PostgreSQL is not started on a failed disk, for which this node is fenced: {} "
                  "{}. HINT: metalctl shard failover, and change the drive; metalctl disk "
                  "acknowledge {} when it is known to be good",
                  sick->fault_class, sick->subject, sick->fault_class),
      {.reason = "FENCED", .metadata = {{"class", sick->fault_class}, {"subject", sick->subject}}});
}

absl::StatusOr<Operation> Node::StartPostgres(const RequestContext& context,
                                              const StartPostgresRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(CheckTimeout("no_progress_timeout", request.no_progress_timeout));
  METAL_RETURN_IF_ERROR(RefuseOnSickDisk());
  if (SettledRoleState() != RoleState::kPrimary) {  // a running primary is started already
    METAL_RETURN_IF_ERROR(Admit(RoleRequest::kStartStandby));
  }
  OperationSpec spec = Spec(context, "StartPostgres", "postgres");
  spec.parameters = {{"no_progress_timeout", absl::FormatDuration(request.no_progress_timeout)}};
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunStart(operation, request);
  });
}

absl::Status Node::InstallManagedFiles() {
  const base::AgentConfig& config = parts_.config;
  METAL_RETURN_IF_ERROR(pg::InstallManagedSettings(config.pg_data_dir, AgentSettingsOf(config)));
  return pg::InstallManagedHba(config.pg_data_dir, HbaOf(config));
}

absl::Status Node::PrepareLaunch() {
  METAL_RETURN_IF_ERROR(RefuseOnSickDisk());  // nor is such a disk written to
  METAL_RETURN_IF_ERROR(InstallManagedFiles());
  return RefuseOnSickDisk();
}

absl::StatusOr<OperationResult> Node::RunStart(OperationContext& context,
                                               const StartPostgresRequest& request) {
  const base::AgentConfig& config = parts_.config;
  const pg::StartRole role = DecideStartRole(parts_.terms, config.pg_data_dir);
  pg::StartOptions options;
  options.as_standby = role == pg::StartRole::kStandby;
  options.progress = &context.progress;
  options.no_progress_limit = request.no_progress_timeout;
  options.prepare = [this] { return PrepareLaunch(); };
  pg::StartResult result;
  for (int attempt = 1;; ++attempt) {
    METAL_ASSIGN_OR_RETURN(result, parts_.supervisor.Start(options));
    if (!result.was_running) break;
    // Adopted while it still starts: the supervisor's watch says when it is ready. One that ended
    // meanwhile was not what the caller asked for.
    const absl::StatusOr<pid_t> adopted = AwaitAdopted(context, result.pid);
    if (adopted.ok()) {
      result.pid = *adopted;
      break;
    }
    if (!absl::IsFailedPrecondition(adopted.status()) || attempt == kStartAttempts) {
      return adopted.status();
    }
  }
  RequestRefresh();
  const bool read_write = result.was_running ? SettledRoleState() == RoleState::kPrimary
                                             : result.role == pg::StartRole::kPrimary;
  return OperationResult{
      "",
      {{"pid", fmt::format("{}", result.pid)},
       {"role", RoleText(read_write ? pg::StartRole::kPrimary : pg::StartRole::kStandby)},
       {"was_running", result.was_running ? "true" : "false"}}};
}

// Waits while the server that was found still starts, and answers which one runs: the watch may
// have restarted it after a crash. No progress is the watch's verdict; with neither readiness nor
// progress the caller gets its action back and the server is left alone.
absl::StatusOr<pid_t> Node::AwaitAdopted(OperationContext& context, pid_t pid) {
  while (true) {
    const auto status = parts_.board.Get();
    const observe::PostgresSection& postgres = status->postgres;
    if (postgres.state == observe::PostgresState::kStarting) {
      METAL_RETURN_IF_ERROR(context.progress.CheckCancelled());
      if (!postgres.state_reason.starts_with(pg::kNoStartProgress)) {
        parts_.clock.Sleep(kStartPoll);
        continue;
      }
      return base::WithReason(
          base::Error(absl::StatusCode::kDeadlineExceeded,
                      "start postgres: process {} runs already and makes no progress ({}). HINT: "
                      "see {}",
                      pid, postgres.start_progress, parts_.supervisor.log_path()),
          {"START_NO_PROGRESS", {{"pid", fmt::format("{}", pid)}}});
    }
    if (postgres.pid == pid || postgres.state == observe::PostgresState::kRunning) {
      return postgres.pid;
    }
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "start postgres: process {} was starting already and ended: {}. HINT: see {}",
                    pid, postgres.state_reason, parts_.supervisor.log_path()),
        {"POSTGRES_START_FAILED", {{"postgres_message", postgres.state_reason}}});
  }
}

absl::StatusOr<Operation> Node::StopPostgres(const RequestContext& context,
                                             const StopPostgresRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(CheckTimeout("timeout", request.timeout));
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kStop));
  OperationSpec spec = Spec(context, "StopPostgres", "postgres");
  spec.parameters = {{"mode", std::string(StopModeName(request.mode))},
                     {"timeout", absl::FormatDuration(request.timeout)},
                     {"escalate", request.escalate ? "true" : "false"}};
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunStop(operation, request);
  });
}

absl::StatusOr<OperationResult> Node::RunStop(OperationContext& context,
                                              const StopPostgresRequest& request) {
  pg::StopOptions options;
  options.mode = PgMode(request.mode);
  options.timeout = request.timeout;
  options.escalate_to = request.escalate ? pg::StopMode::kImmediate : options.mode;
  options.escalation_timeout = request.timeout;
  METAL_ASSIGN_OR_RETURN(const pg::StopResult result,
                         parts_.supervisor.Stop(options, &context.progress));
  OperationResult answer;
  answer.values["mode"] = std::string(pg::StopModeName(result.mode));
  const auto control = pg::ReadControlFile(parts_.config.pg_data_dir);
  answer.values["control_state"] =
      control.ok() ? std::string(pg::ControlStateName(control->state)) : "";
  return answer;
}

absl::StatusOr<Operation> Node::RestartPostgres(const RequestContext& context,
                                                const RestartPostgresRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(CheckTimeout("timeout", request.timeout));
  METAL_RETURN_IF_ERROR(RefuseOnSickDisk());
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kRestart));
  OperationSpec spec = Spec(context, "RestartPostgres", "postgres");
  spec.parameters = {{"mode", std::string(StopModeName(request.mode))},
                     {"timeout", absl::FormatDuration(request.timeout)}};
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunRestart(operation, request);
  });
}

absl::StatusOr<OperationResult> Node::RunRestart(OperationContext& context,
                                                 const RestartPostgresRequest& request) {
  // A server that could not be started again is not stopped.
  METAL_RETURN_IF_ERROR(RefuseOnSickDisk());
  METAL_RETURN_IF_ERROR(parts_.disks.CheckDrives(parts_.config.pg_data_dir));
  METAL_ASSIGN_OR_RETURN(const auto directory, pg::InspectDataDirectory(parts_.config.pg_data_dir));
  METAL_ASSIGN_OR_RETURN(const auto version, parts_.install.Version());
  METAL_RETURN_IF_ERROR(pg::CheckStartable(directory, version, ::geteuid()));
  // pg_control says "in production" or "in archive recovery" now, and the matching "shut down"
  // after the stop: the answer is the same before and after.
  const pg::StartRole role = DecideStartRole(parts_.terms, parts_.config.pg_data_dir);
  pg::StopOptions stop;
  stop.mode = PgMode(request.mode);
  stop.timeout = request.timeout;
  stop.escalate_to = stop.mode;
  pg::StartOptions start;
  start.as_standby = role == pg::StartRole::kStandby;
  start.progress = &context.progress;
  start.prepare = [this] { return PrepareLaunch(); };
  METAL_ASSIGN_OR_RETURN(const pg::StartResult result, parts_.supervisor.Restart(stop, start));
  RequestRefresh();
  return OperationResult{"",
                         {{"pid", fmt::format("{}", result.pid)}, {"role", RoleText(result.role)}}};
}

}  // namespace metal::node
