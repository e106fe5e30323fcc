// What a node may be asked in each role state: one table of state × request → next state or
// refusal. The node consults it before each action; the same rows give the refusal texts. Doors
// keep a term of their own and are not asked here. Threading: pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/node/terms/term_record.h"
#include "agent/observe/status_board.h"

namespace metal::node {

enum class RoleState {
  kEmpty,      // no data directory
  kStopped,    // a data directory, no postmaster, no fence
  kStandby,    // in recovery
  kPromoting,  // the stored term says primary, Postgres is still in recovery
  kPrimary,    // read-write, and the stored term says so
  kRogue,      // read-write although the stored term does not say so (an older term's primary, a
               // foreign start)
  kFenced,     // a fence is active; Postgres is stopped or in recovery
  kUnsettled,  // starting, stopping, unresponsive, crashed or not yet observed: the role is not
               // known
};
inline constexpr int kRoleStates = 8;

enum class RoleRequest {
  kInitDataDirectory,
  kRestoreBackup,  // over the node's own data directory
  kStartStandby,
  kStartPrimary,  // only ever a consequence of the stored term
  kStop,
  kRestart,
  kChangeConfig,  // ReloadConfig, ApplyConfig
  kBeginTerm,
  kPromote,
  kFence,
  kUnfence,
  kCreateBackup,
  kWaitForLsn,
  kDemote,
  kUndoDemote,  // only of the same term's Demote
  kFollowPrimary,
  kRewind,
  kClone,
  kControlReplay,      // PauseReplay, ResumeReplay, StopWalReceiver, StartWalReceiver
  kChangeSynchronous,  // SetSynchronousStandbys
  kReconcileSlots,
  kRenewLease,
};
inline constexpr int kRoleRequests = 22;

// How a state answers a request. `next` is the state once the action succeeded (equal to the state
// when it does not change); a non-empty refusal says why not, in words that fit after "<request>
// refused: ".
struct RoleRule {
  RoleState state;
  RoleRequest request;
  RoleState next;
  std::string_view refusal;
  bool allowed() const { return refusal.empty(); }
};

// All rows: kRoleStates × kRoleRequests of them.
std::span<const RoleRule> RoleTable();
const RoleRule& FindRule(RoleState state, RoleRequest request);

// OK, or FAILED_PRECONDITION with reason ROLE_TRANSITION (FENCED in kFenced), the state and the
// request in the metadata.
absl::Status CheckRequest(RoleState state, RoleRequest request);

// The state that the stored record and the last observation amount to.
RoleState ClassifyRole(const TermRecord& record, const observe::PostgresSection& postgres);

std::string_view RoleStateName(RoleState state);        // "standby"
std::string_view RoleRequestName(RoleRequest request);  // "promote"

}  // namespace metal::node
