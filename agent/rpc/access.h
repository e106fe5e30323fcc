// Who may call what, and how many calls of a kind may run at once: one table of RPC → least role
// and pace. Roles come from exact subject alternative names of client certificates; callers on the
// unix socket and on loopback TCP without TLS have every role (the socket's mode guards the first).
// Threading: immutable after construction.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/base/config.h"
#include "grpcpp/server_context.h"

namespace metal::rpc {

// viewer ⊂ operator ⊂ orchestrator; a peer may only observe and (later) replicate.
enum class CallerRole { kViewer, kPeer, kOperator, kOrchestrator };

enum class Permission { kObserve, kOperate, kOrchestrate };

// How long a call may hold a thread of the server.
enum class Pace {
  kInstant,  // answers from memory: never refused, so that others cannot keep a status back
  kActs,     // may wait for the data disk, PostgreSQL or the journal
  kWatches,  // waits by its nature: streams, WaitOperation, WaitForLsn
  // Changes a role, or ends what is in the way of one: places of its own, so that neither viewers
  // nor backups of a node whose disk hangs keep a fence from being heard.
  kOrders,
};
inline constexpr int kActsAtOnce = 12;
inline constexpr int kOrdersAtOnce = 12;
inline constexpr int kWatchesAtOnce = 40;

struct RpcPermission {
  std::string_view rpc;  // "HostService/GetStatus"
  Permission permission;
  Pace pace = Pace::kActs;
};
std::span<const RpcPermission> RpcPermissions();
// kActs for an RPC that is not in the table. Whatever acts for an orchestrator alone is kOrders.
Pace PaceOf(std::string_view rpc);

bool MayCall(CallerRole role, Permission permission);

class AccessControl {
 public:
  explicit AccessControl(const std::vector<base::AgentConfig::RoleBinding>& bindings);

  // Name of the caller for journals: the certificate's matching name, "unix" or the peer's address.
  // PERMISSION_DENIED names the role and the RPC; an RPC that is not in the table is refused.
  absl::StatusOr<std::string> Authorize(std::string_view rpc, const std::string& peer, bool tls,
                                        const std::vector<std::string>& names) const;
  // The same from a call.
  absl::StatusOr<std::string> Authorize(std::string_view rpc,
                                        const grpc::ServerContextBase& context) const;

 private:
  std::map<std::string, CallerRole, std::less<>> roles_;  // by subject alternative name
};

// viewer, peer, operator, orchestrator.
absl::StatusOr<CallerRole> ParseCallerRole(std::string_view name);
std::string_view CallerRoleName(CallerRole role);

}  // namespace metal::rpc
