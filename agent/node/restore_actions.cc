// Node's restore: into another directory, or over the node's own under a term.
#include <charconv>

#include "agent/backup/restore.h"
#include "agent/backup/restore_places.h"
#include "agent/base/fault_point.h"
#include "agent/base/status.h"
#include "agent/node/node.h"
#include "agent/node/tablespace_mapping.h"
#include "agent/pg/hba.h"

namespace metal::node {

namespace {

std::string_view RecoveryTargetName(RecoveryTarget target) {
  switch (target) {
    case RecoveryTarget::kLatest:
      return "latest";
    case RecoveryTarget::kImmediate:
      return "immediate";
    case RecoveryTarget::kStandby:
      return "standby";
  }
  return "latest";
}

// What the journal keeps of a request, and back.
std::map<std::string, std::string> ParametersOf(const RestoreBackupRequest& request) {
  std::map<std::string, std::string> parameters = {
      {"backup", request.name},
      {"recovery_target", std::string(RecoveryTargetName(request.recovery_target))}};
  if (request.port != 0) parameters["port"] = fmt::format("{}", request.port);
  if (request.holder.term != 0) parameters["orchestrator_id"] = request.holder.orchestrator_id;
  for (const auto& [oid, path] : request.tablespace_mapping) {
    parameters["tablespace." + oid] = path;
  }
  return parameters;
}

absl::StatusOr<RestoreBackupRequest> RequestOf(const OperationSpec& spec) {
  RestoreBackupRequest request;
  request.target_directory = spec.subject;
  request.holder.term = spec.term;
  bool has_target = false;
  for (const auto& [name, value] : spec.parameters) {
    if (name == "backup") request.name = value;
    if (name == "orchestrator_id") request.holder.orchestrator_id = value;
    if (name.starts_with("tablespace.")) request.tablespace_mapping[name.substr(11)] = value;
    if (name == "port") {
      std::from_chars(value.data(), value.data() + value.size(), request.port);
    }
    for (const RecoveryTarget target :
         {RecoveryTarget::kLatest, RecoveryTarget::kImmediate, RecoveryTarget::kStandby}) {
      if (name != "recovery_target" || value != RecoveryTargetName(target)) continue;
      request.recovery_target = target;
      has_target = true;
    }
  }
  if (has_target && !request.name.empty()) return request;
  return base::Error(absl::StatusCode::kFailedPrecondition,
                     "the journal does not hold the whole request. HINT: start it again");
}

backup::RecoveryTarget TargetOf(RecoveryTarget target) {
  switch (target) {
    case RecoveryTarget::kLatest:
      return backup::RecoveryTarget::kLatest;
    case RecoveryTarget::kImmediate:
      return backup::RecoveryTarget::kImmediate;
    case RecoveryTarget::kStandby:
      return backup::RecoveryTarget::kStandby;
  }
  return backup::RecoveryTarget::kLatest;
}

OperationResult ResultOf(const backup::RestoreReport& report) {
  OperationResult result;
  result.values = {{"backup", "backups/" + report.backup},
                   {"files", fmt::format("{}", report.files)},
                   {"bytes", fmt::format("{}", report.bytes)},
                   {"stored_bytes", fmt::format("{}", report.stored_bytes)},
                   {"seconds", fmt::format("{:.3f}", absl::ToDoubleSeconds(report.elapsed))},
                   {"bytes_per_second", fmt::format("{:.0f}", report.bytes_per_second())},
                   {"io_engine", report.io_engine},
                   {"state", report.suspect ? "suspect" : "complete"},
                   {"target_directory", report.target_directory}};
  return result;
}

}  // namespace

absl::StatusOr<std::optional<Operation>> Node::RestoreBackup(const RequestContext& context,
                                                             const RestoreBackupRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return earlier;
  METAL_RETURN_IF_ERROR(CheckBackupName(request.name));
  METAL_RETURN_IF_ERROR(ParseTablespaceMapping(request.tablespace_mapping).status());
  RestoreBackupRequest resolved = request;
  if (resolved.target_directory.empty()) resolved.target_directory = parts_.config.pg_data_dir;
  if (!resolved.target_directory.starts_with("/") || backup::LeadsUp(resolved.target_directory)) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "target_directory \"{}\" is no absolute path without \"..\"",
                       resolved.target_directory);
  }
  if (request.port < 0 || request.port > 65535) {
    return base::Error(absl::StatusCode::kInvalidArgument, "port {} is not from 1 to 65535",
                       request.port);
  }
  // "latest" means the latest of now, also when the operation is repeated later.
  METAL_ASSIGN_OR_RETURN(const backup::BackupInfo info, GetBackup(request.name));
  resolved.name = "backups/" + info.label;
  METAL_ASSIGN_OR_RETURN(const bool own, IsOwnDirectory(resolved.target_directory));
  if (own) {
    resolved.target_directory = parts_.config.pg_data_dir;
    METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
    METAL_RETURN_IF_ERROR(Admit(RoleRequest::kRestoreBackup));
    if (request.recovery_target == RecoveryTarget::kImmediate || request.port != 0) {
      return absl::InvalidArgumentError(
          "the node's own data directory is restored as a standby on the node's port. HINT: leave "
          "port and recovery_target unset; Promote opens it for writes");
    }
    resolved.recovery_target = RecoveryTarget::kStandby;
  }
  if (request.validate_only) {
    observe::Progress progress(parts_.clock);
    METAL_RETURN_IF_ERROR(Restore(progress, resolved).status());
    return std::optional<Operation>();
  }
  OperationSpec spec = Spec(context, "RestoreBackup", resolved.target_directory,
                            own ? OperationLane::kAction : OperationLane::kReader);
  if (!own) resolved.holder = {};
  spec.term = resolved.holder.term;
  spec.parameters = ParametersOf(resolved);
  METAL_ASSIGN_OR_RETURN(
      Operation operation,
      parts_.operations.Start(std::move(spec), [this, resolved](OperationContext& running) {
        return RunRestore(running, resolved);
      }));
  return std::optional<Operation>(std::move(operation));
}

absl::StatusOr<OperationBody> Node::ResumeRestore(const Operation& operation) {
  METAL_ASSIGN_OR_RETURN(const RestoreBackupRequest request, RequestOf(operation.spec));
  return OperationBody(
      [this, request](OperationContext& context) -> absl::StatusOr<OperationResult> {
        auto result = RunRestore(context, request);
        if (result.ok() || absl::IsCancelled(result.status())) return result;
        // Perhaps because the agent died after the last step: the directory is then complete.
        return base::WithReason(
            base::Annotate(result.status(), "the agent restarted while this ran, resume"),
            {.reason = "AGENT_RESTARTED", .metadata = {{"kind", context.spec.kind}}});
      });
}

absl::StatusOr<bool> Node::IsOwnDirectory(const std::string& path) const {
  if (path == parts_.config.pg_data_dir) return true;
  if (parts_.config.pg_data_dir.empty()) return false;
  return backup::IsSamePlace(path, parts_.config.pg_data_dir);
}

absl::StatusOr<backup::RestoreReport> Node::Restore(observe::Progress& progress,
                                                    const RestoreBackupRequest& request) {
  METAL_ASSIGN_OR_RETURN(const backup::BackupInfo info, GetBackup(request.name));
  backup::RestoreRequest restore;
  restore.backup = info.label;
  restore.system_identifier = info.header.system_identifier;
  restore.target_directory = request.target_directory;
  METAL_ASSIGN_OR_RETURN(restore.tablespace_mapping,
                         ParseTablespaceMapping(request.tablespace_mapping));
  restore.recovery_target = TargetOf(request.recovery_target);
  restore.validate_only = request.validate_only;
  if (request.port != 0) restore.settings["port"] = fmt::format("{}", request.port);
  METAL_ASSIGN_OR_RETURN(const bool own, IsOwnDirectory(request.target_directory));
  if (own) restore.wal_directory = parts_.config.pg_wal_dir;
  return backup::RestoreBackup(restore, BackupContext(progress));
}

absl::StatusOr<OperationResult> Node::RunRestore(OperationContext& context,
                                                 const RestoreBackupRequest& request) {
  METAL_ASSIGN_OR_RETURN(const bool own, IsOwnDirectory(request.target_directory));
  if (!own) {
    METAL_ASSIGN_OR_RETURN(const backup::RestoreReport report, Restore(context.progress, request));
    return ResultOf(report);
  }
  backup::RestoreReport report;
  const auto body = [&]() -> absl::Status {
    METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
    METAL_RETURN_IF_ERROR(parts_.terms.DropPrimaryRole());
    METAL_RETURN_IF_ERROR(base::FaultPoint("node.before_restore"));
    ForgetTerms();
    METAL_ASSIGN_OR_RETURN(report, Restore(context.progress, request));
    // The copy carries the settings of the node that was backed up.
    pg::HbaOptions hba;
    hba.superuser = parts_.config.pg_superuser;
    hba.os_user = parts_.config.os_user;
    METAL_RETURN_IF_ERROR(
        pg::InstallManagedSettings(request.target_directory, AgentSettingsOf(parts_.config)));
    return pg::InstallManagedHba(request.target_directory, hba);
  };
  // A probe file in the directory would make it one that is not empty.
  parts_.disks.StopProbing("data");
  const absl::Status restored = parts_.supervisor.WithServerStopped("restore a backup", body);
  RequestRefresh();
  METAL_RETURN_IF_ERROR(restored);
  parts_.disks.NoteDrivesAnew();
  ForgetRewind();
  if (parts_.data_lock) METAL_RETURN_IF_ERROR(parts_.data_lock->LockDirectory());
  return ResultOf(report);
}

}  // namespace metal::node
