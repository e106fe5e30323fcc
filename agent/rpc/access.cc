#include "agent/rpc/access.h"

#include <algorithm>
#include <array>

#include "agent/base/status.h"

namespace metal::rpc {
namespace {

constexpr std::array kPermissions = {
    RpcPermission{"HostService/GetStatus", Permission::kObserve, Pace::kInstant},
    RpcPermission{"HostService/WatchStatus", Permission::kObserve, Pace::kWatches},
    RpcPermission{"HostService/ListEvents", Permission::kObserve},
    RpcPermission{"HostService/WatchEvents", Permission::kObserve, Pace::kWatches},
    RpcPermission{"HostService/GetCapabilities", Permission::kObserve},
    RpcPermission{"HostService/CaptureDiagnostics", Permission::kOperate},
    RpcPermission{"OperationsService/GetOperation", Permission::kObserve, Pace::kInstant},
    RpcPermission{"OperationsService/ListOperations", Permission::kObserve, Pace::kInstant},
    RpcPermission{"OperationsService/WaitOperation", Permission::kObserve, Pace::kWatches},
    RpcPermission{"OperationsService/WatchOperation", Permission::kObserve, Pace::kWatches},
    RpcPermission{"OperationsService/CancelOperation", Permission::kOperate, Pace::kOrders},
    RpcPermission{"PostgresService/InitDataDirectory", Permission::kOperate},
    RpcPermission{"PostgresService/StartPostgres", Permission::kOperate},
    RpcPermission{"PostgresService/StopPostgres", Permission::kOperate},
    RpcPermission{"PostgresService/RestartPostgres", Permission::kOperate},
    RpcPermission{"PostgresService/ReloadConfig", Permission::kOperate},
    RpcPermission{"PostgresService/ApplyConfig", Permission::kOperate},
    RpcPermission{"PostgresService/GetConfig", Permission::kObserve},
    RpcPermission{"PostgresService/GetControlData", Permission::kObserve},
    RpcPermission{"ReplicationService/BeginTerm", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/Promote", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/Fence", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/Unfence", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/WaitForLsn", Permission::kObserve, Pace::kWatches},
    RpcPermission{"ReplicationService/Rewind", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/Demote", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/UndoDemote", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/FollowPrimary", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/SetSynchronousStandbys", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/ReconcileReplicationSlots", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/PauseReplay", Permission::kOperate},
    RpcPermission{"ReplicationService/ResumeReplay", Permission::kOperate},
    RpcPermission{"ReplicationService/StopWalReceiver", Permission::kOperate},
    RpcPermission{"ReplicationService/StartWalReceiver", Permission::kOperate},
    RpcPermission{"ReplicationService/HoldTraffic", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/ReleaseTraffic", Permission::kOrchestrate},
    RpcPermission{"ReplicationService/Clone", Permission::kOrchestrate},
    // A renewal that is kept waiting costs a primary.
    RpcPermission{"ReplicationService/RenewLease", Permission::kOrchestrate, Pace::kInstant},
    RpcPermission{"BackupService/CreateBackup", Permission::kOperate},
    RpcPermission{"BackupService/ListBackups", Permission::kObserve},
    RpcPermission{"BackupService/GetBackup", Permission::kObserve},
    RpcPermission{"BackupService/VerifyBackup", Permission::kOperate},
    RpcPermission{"BackupService/RestoreBackup", Permission::kOrchestrate},
    RpcPermission{"BackupService/GetArchiveStatus", Permission::kObserve},
    RpcPermission{"StorageService/ListDisks", Permission::kObserve, Pace::kInstant},
    RpcPermission{"StorageService/GetStorageHealth", Permission::kObserve, Pace::kInstant},
    RpcPermission{"StorageService/WatchStorageHealth", Permission::kObserve, Pace::kWatches},
    RpcPermission{"StorageService/GetDriveLogs", Permission::kObserve, Pace::kInstant},
    RpcPermission{"StorageService/RunStorageProbe", Permission::kOperate},
    RpcPermission{"StorageService/TellPeers", Permission::kOperate},
    RpcPermission{"StorageService/AcknowledgeFault", Permission::kOperate},
};

// Null: it is not in the table.
const RpcPermission* FindRpc(std::string_view rpc) {
  const auto* found = std::find_if(kPermissions.begin(), kPermissions.end(),
                                   [&](const RpcPermission& entry) { return entry.rpc == rpc; });
  return found == kPermissions.end() ? nullptr : found;
}

absl::Status Refused(std::string_view rpc, std::string_view who, std::string_view hint) {
  return base::WithReason(
      base::Error(absl::StatusCode::kPermissionDenied, "{} may not call {}. HINT: {}", who, rpc,
                  hint),
      {"PERMISSION_DENIED", {{"rpc", std::string(rpc)}, {"role", std::string(who)}}});
}

}  // namespace

std::span<const RpcPermission> RpcPermissions() { return kPermissions; }

Pace PaceOf(std::string_view rpc) {
  const RpcPermission* found = FindRpc(rpc);
  if (found == nullptr) return Pace::kActs;
  const bool orders = found->pace == Pace::kActs && found->permission == Permission::kOrchestrate;
  return orders ? Pace::kOrders : found->pace;
}

bool MayCall(CallerRole role, Permission permission) {
  switch (permission) {
    case Permission::kObserve:
      return true;
    case Permission::kOperate:
      return role == CallerRole::kOperator || role == CallerRole::kOrchestrator;
    case Permission::kOrchestrate:
      return role == CallerRole::kOrchestrator;
  }
  return false;
}

absl::StatusOr<CallerRole> ParseCallerRole(std::string_view name) {
  for (CallerRole role :
       {CallerRole::kViewer, CallerRole::kPeer, CallerRole::kOperator, CallerRole::kOrchestrator}) {
    if (name == CallerRoleName(role)) return role;
  }
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "unknown role '{}'. HINT: viewer, peer, operator or orchestrator", name);
}

std::string_view CallerRoleName(CallerRole role) {
  switch (role) {
    case CallerRole::kViewer:
      return "viewer";
    case CallerRole::kPeer:
      return "peer";
    case CallerRole::kOperator:
      return "operator";
    case CallerRole::kOrchestrator:
      return "orchestrator";
  }
  return "unknown";
}

AccessControl::AccessControl(const std::vector<base::AgentConfig::RoleBinding>& bindings) {
  for (const auto& binding : bindings) {
    if (auto role = ParseCallerRole(binding.role); role.ok()) roles_[binding.san] = *role;
  }
}

absl::StatusOr<std::string> AccessControl::Authorize(std::string_view rpc, const std::string& peer,
                                                     bool tls,
                                                     const std::vector<std::string>& names) const {
  const RpcPermission* found_rpc = FindRpc(rpc);
  if (found_rpc == nullptr) return Refused(rpc, "nobody", "the RPC has no row in the access table");
  if (!tls) return peer.rfind("unix:", 0) == 0 ? "unix" : peer;
  std::string best;
  for (const std::string& name : names) {
    const auto found = roles_.find(name);
    if (found == roles_.end()) continue;
    if (MayCall(found->second, found_rpc->permission)) return name;
    best = CallerRoleName(found->second);
  }
  if (best.empty()) {
    return Refused(rpc, names.empty() ? "a certificate without names" : names.front(),
                   "add a [[tls.role]] for the certificate's subject alternative name");
  }
  return Refused(rpc, best, "use a certificate with the operator or orchestrator role");
}

absl::StatusOr<std::string> AccessControl::Authorize(std::string_view rpc,
                                                     const grpc::ServerContextBase& context) const {
  const auto auth = context.auth_context();
  std::vector<std::string> names;
  bool tls = false;
  if (auth != nullptr) {
    for (const auto& type : auth->FindPropertyValues("transport_security_type")) {
      tls = tls || type == "ssl" || type == "tls";
    }
    for (const auto& value : auth->FindPropertyValues("x509_subject_alternative_name")) {
      names.emplace_back(value.data(), value.size());
    }
  }
  return Authorize(rpc, context.peer(), tls, names);
}

}  // namespace metal::rpc
