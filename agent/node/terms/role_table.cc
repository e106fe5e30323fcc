#include "agent/node/terms/role_table.h"

#include <array>

#include "agent/base/check.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::node {

namespace {

using S = RoleState;
using R = RoleRequest;

constexpr std::string_view kNoCluster =
    "there is no data directory. HINT: InitDataDirectory or RestoreBackup first";
constexpr std::string_view kHasCluster =
    "the data directory exists already. HINT: use another postgres.data_dir, or move the old one "
    "away";
constexpr std::string_view kIsUp = "PostgreSQL is running. HINT: StopPostgres first";
constexpr std::string_view kIsDown = "PostgreSQL is stopped. HINT: StartPostgres first";
constexpr std::string_view kNotOrdered =
    "the stored term does not make this node the primary. HINT: BeginTerm, then Promote";
constexpr std::string_view kFencedText = "the node is fenced. HINT: Unfence it first";
constexpr std::string_view kReadWrite =
    "PostgreSQL runs read-write without an order of the stored term. HINT: BeginTerm makes it a "
    "standby";
constexpr std::string_view kOrdered =
    "a promotion was ordered in this term. HINT: repeat Promote, or begin a higher term";
constexpr std::string_view kIsPrimary =
    "the node is the primary. HINT: Demote or BeginTerm makes it a standby";
constexpr std::string_view kNotPrimary =
    "the node is not the primary of this term. HINT: Promote gives it a lease";
constexpr std::string_view kWait =
    "PostgreSQL is starting, stopping or does not answer. HINT: GetStatus, then try again";

// One block per state, in the order of RoleRequest. Self-transitions are idempotent repetitions. A
// higher term is stored before the table is asked, which turns kPrimary into kRogue and kPromoting
// into kStandby: their BeginTerm rows are repetitions within one term. A lease is of the order to
// be primary: it may be renewed while the server is down or starts, and the term store refuses it
// to whoever has no such order.
constexpr std::array<RoleRule, kRoleStates* kRoleRequests> kTable = {{
    {S::kEmpty, R::kInitDataDirectory, S::kStopped, ""},
    {S::kEmpty, R::kRestoreBackup, S::kStopped, ""},
    {S::kEmpty, R::kStartStandby, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kStartPrimary, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kStop, S::kEmpty, ""},
    {S::kEmpty, R::kRestart, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kChangeConfig, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kBeginTerm, S::kEmpty, ""},
    {S::kEmpty, R::kPromote, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kFence, S::kFenced, ""},
    {S::kEmpty, R::kUnfence, S::kEmpty, ""},
    {S::kEmpty, R::kCreateBackup, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kWaitForLsn, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kDemote, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kUndoDemote, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kFollowPrimary, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kRewind, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kClone, S::kStandby, ""},
    {S::kEmpty, R::kControlReplay, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kChangeSynchronous, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kReconcileSlots, S::kEmpty, kNoCluster},
    {S::kEmpty, R::kRenewLease, S::kEmpty, kNoCluster},

    {S::kStopped, R::kInitDataDirectory, S::kStopped, kHasCluster},
    {S::kStopped, R::kRestoreBackup, S::kStopped, kHasCluster},
    {S::kStopped, R::kStartStandby, S::kStandby, ""},
    {S::kStopped, R::kStartPrimary, S::kPrimary, ""},
    {S::kStopped, R::kStop, S::kStopped, ""},
    {S::kStopped, R::kRestart, S::kUnsettled, ""},
    {S::kStopped, R::kChangeConfig, S::kStopped, ""},
    {S::kStopped, R::kBeginTerm, S::kStopped, ""},
    {S::kStopped, R::kPromote, S::kStopped, kIsDown},
    {S::kStopped, R::kFence, S::kFenced, ""},
    {S::kStopped, R::kUnfence, S::kStopped, ""},
    {S::kStopped, R::kCreateBackup, S::kStopped, kIsDown},
    {S::kStopped, R::kWaitForLsn, S::kStopped, kIsDown},
    {S::kStopped, R::kDemote, S::kStopped, ""},
    {S::kStopped, R::kUndoDemote, S::kPrimary, ""},
    {S::kStopped, R::kFollowPrimary, S::kStopped, ""},
    {S::kStopped, R::kRewind, S::kStandby, ""},
    {S::kStopped, R::kClone, S::kStandby, ""},
    {S::kStopped, R::kControlReplay, S::kStopped, kIsDown},
    {S::kStopped, R::kChangeSynchronous, S::kStopped, ""},
    {S::kStopped, R::kReconcileSlots, S::kStopped, kIsDown},
    {S::kStopped, R::kRenewLease, S::kStopped, ""},

    {S::kStandby, R::kInitDataDirectory, S::kStandby, kHasCluster},
    {S::kStandby, R::kRestoreBackup, S::kStandby, kIsUp},
    {S::kStandby, R::kStartStandby, S::kStandby, ""},
    {S::kStandby, R::kStartPrimary, S::kStandby, kNotOrdered},
    {S::kStandby, R::kStop, S::kStopped, ""},
    {S::kStandby, R::kRestart, S::kUnsettled, ""},
    {S::kStandby, R::kChangeConfig, S::kStandby, ""},
    {S::kStandby, R::kBeginTerm, S::kStandby, ""},
    {S::kStandby, R::kPromote, S::kPromoting, ""},
    {S::kStandby, R::kFence, S::kFenced, ""},
    {S::kStandby, R::kUnfence, S::kStandby, ""},
    {S::kStandby, R::kCreateBackup, S::kStandby, ""},
    {S::kStandby, R::kWaitForLsn, S::kStandby, ""},
    {S::kStandby, R::kDemote, S::kStandby, ""},
    {S::kStandby, R::kUndoDemote, S::kPrimary, ""},
    {S::kStandby, R::kFollowPrimary, S::kStandby, ""},
    {S::kStandby, R::kRewind, S::kStandby, ""},
    {S::kStandby, R::kClone, S::kStandby, ""},
    {S::kStandby, R::kControlReplay, S::kStandby, ""},
    {S::kStandby, R::kChangeSynchronous, S::kStandby, ""},
    {S::kStandby, R::kReconcileSlots, S::kStandby, ""},
    {S::kStandby, R::kRenewLease, S::kStandby, kNotPrimary},

    {S::kPromoting, R::kInitDataDirectory, S::kPromoting, kHasCluster},
    {S::kPromoting, R::kRestoreBackup, S::kPromoting, kIsUp},
    {S::kPromoting, R::kStartStandby, S::kPromoting, ""},
    {S::kPromoting, R::kStartPrimary, S::kPrimary, ""},
    {S::kPromoting, R::kStop, S::kStopped, ""},
    {S::kPromoting, R::kRestart, S::kUnsettled, ""},
    {S::kPromoting, R::kChangeConfig, S::kPromoting, ""},
    {S::kPromoting, R::kBeginTerm, S::kPromoting, kOrdered},
    {S::kPromoting, R::kPromote, S::kPrimary, ""},
    {S::kPromoting, R::kFence, S::kFenced, ""},
    {S::kPromoting, R::kUnfence, S::kPromoting, ""},
    {S::kPromoting, R::kCreateBackup, S::kPromoting, ""},
    {S::kPromoting, R::kWaitForLsn, S::kPromoting, ""},
    {S::kPromoting, R::kDemote, S::kPromoting, kOrdered},
    {S::kPromoting, R::kUndoDemote, S::kPrimary, ""},
    {S::kPromoting, R::kFollowPrimary, S::kPromoting, kOrdered},
    {S::kPromoting, R::kRewind, S::kPromoting, kOrdered},
    {S::kPromoting, R::kClone, S::kPromoting, kOrdered},
    {S::kPromoting, R::kControlReplay, S::kPromoting, kOrdered},
    {S::kPromoting, R::kChangeSynchronous, S::kPromoting, ""},
    {S::kPromoting, R::kReconcileSlots, S::kPromoting, ""},
    {S::kPromoting, R::kRenewLease, S::kPromoting, ""},

    {S::kPrimary, R::kInitDataDirectory, S::kPrimary, kHasCluster},
    {S::kPrimary, R::kRestoreBackup, S::kPrimary, kIsUp},
    {S::kPrimary, R::kStartStandby, S::kPrimary,
     "the node is the primary. HINT: BeginTerm makes it a standby"},
    {S::kPrimary, R::kStartPrimary, S::kPrimary, ""},
    {S::kPrimary, R::kStop, S::kStopped, ""},
    {S::kPrimary, R::kRestart, S::kUnsettled, ""},
    {S::kPrimary, R::kChangeConfig, S::kPrimary, ""},
    {S::kPrimary, R::kBeginTerm, S::kPrimary,
     "the node is the primary of this term. HINT: begin a higher term to make it a standby"},
    {S::kPrimary, R::kPromote, S::kPrimary, ""},
    {S::kPrimary, R::kFence, S::kFenced, ""},
    {S::kPrimary, R::kUnfence, S::kPrimary, ""},
    {S::kPrimary, R::kCreateBackup, S::kPrimary, ""},
    {S::kPrimary, R::kWaitForLsn, S::kPrimary, ""},
    {S::kPrimary, R::kDemote, S::kStandby, ""},
    {S::kPrimary, R::kUndoDemote, S::kPrimary, ""},
    {S::kPrimary, R::kFollowPrimary, S::kPrimary, kIsPrimary},
    {S::kPrimary, R::kRewind, S::kPrimary, kIsPrimary},
    {S::kPrimary, R::kClone, S::kPrimary, kIsPrimary},
    {S::kPrimary, R::kControlReplay, S::kPrimary, kIsPrimary},
    {S::kPrimary, R::kChangeSynchronous, S::kPrimary, ""},
    {S::kPrimary, R::kReconcileSlots, S::kPrimary, ""},
    {S::kPrimary, R::kRenewLease, S::kPrimary, ""},

    {S::kRogue, R::kInitDataDirectory, S::kRogue, kHasCluster},
    {S::kRogue, R::kRestoreBackup, S::kRogue, kIsUp},
    {S::kRogue, R::kStartStandby, S::kRogue, kReadWrite},
    {S::kRogue, R::kStartPrimary, S::kRogue, kNotOrdered},
    {S::kRogue, R::kStop, S::kStopped, ""},
    {S::kRogue, R::kRestart, S::kUnsettled, ""},
    {S::kRogue, R::kChangeConfig, S::kRogue, ""},
    {S::kRogue, R::kBeginTerm, S::kStandby, ""},
    {S::kRogue, R::kPromote, S::kRogue, kReadWrite},
    {S::kRogue, R::kFence, S::kFenced, ""},
    {S::kRogue, R::kUnfence, S::kRogue, ""},
    {S::kRogue, R::kCreateBackup, S::kRogue, ""},
    {S::kRogue, R::kWaitForLsn, S::kRogue, ""},
    {S::kRogue, R::kDemote, S::kStandby, ""},
    {S::kRogue, R::kUndoDemote, S::kPrimary, ""},
    {S::kRogue, R::kFollowPrimary, S::kRogue, kReadWrite},
    {S::kRogue, R::kRewind, S::kRogue, kReadWrite},
    {S::kRogue, R::kClone, S::kRogue, kReadWrite},
    {S::kRogue, R::kControlReplay, S::kRogue, kReadWrite},
    {S::kRogue, R::kChangeSynchronous, S::kRogue, kReadWrite},
    {S::kRogue, R::kReconcileSlots, S::kRogue, kReadWrite},
    {S::kRogue, R::kRenewLease, S::kRogue, kReadWrite},

    {S::kFenced, R::kInitDataDirectory, S::kFenced, kFencedText},
    {S::kFenced, R::kRestoreBackup, S::kFenced, kFencedText},
    {S::kFenced, R::kStartStandby, S::kFenced, ""},
    {S::kFenced, R::kStartPrimary, S::kFenced, kFencedText},
    {S::kFenced, R::kStop, S::kFenced, ""},
    {S::kFenced, R::kRestart, S::kFenced, ""},
    {S::kFenced, R::kChangeConfig, S::kFenced, ""},
    {S::kFenced, R::kBeginTerm, S::kFenced, ""},
    {S::kFenced, R::kPromote, S::kFenced, kFencedText},
    {S::kFenced, R::kFence, S::kFenced, ""},
    {S::kFenced, R::kUnfence, S::kUnsettled, ""},
    {S::kFenced, R::kCreateBackup, S::kFenced, ""},
    {S::kFenced, R::kWaitForLsn, S::kFenced, ""},
    {S::kFenced, R::kDemote, S::kFenced, ""},
    {S::kFenced, R::kUndoDemote, S::kFenced, kFencedText},
    {S::kFenced, R::kFollowPrimary, S::kFenced, ""},
    {S::kFenced, R::kRewind, S::kFenced, ""},
    {S::kFenced, R::kClone, S::kFenced, ""},
    {S::kFenced, R::kControlReplay, S::kFenced, ""},
    {S::kFenced, R::kChangeSynchronous, S::kFenced, kFencedText},
    {S::kFenced, R::kReconcileSlots, S::kFenced, ""},
    {S::kFenced, R::kRenewLease, S::kFenced, kFencedText},

    {S::kUnsettled, R::kInitDataDirectory, S::kUnsettled, kHasCluster},
    {S::kUnsettled, R::kRestoreBackup, S::kUnsettled, kIsUp},
    {S::kUnsettled, R::kStartStandby, S::kStandby, ""},
    {S::kUnsettled, R::kStartPrimary, S::kPrimary, ""},
    {S::kUnsettled, R::kStop, S::kStopped, ""},
    {S::kUnsettled, R::kRestart, S::kUnsettled, ""},
    {S::kUnsettled, R::kChangeConfig, S::kUnsettled, kWait},
    {S::kUnsettled, R::kBeginTerm, S::kStandby, ""},
    {S::kUnsettled, R::kPromote, S::kUnsettled, kWait},
    {S::kUnsettled, R::kFence, S::kFenced, ""},
    {S::kUnsettled, R::kUnfence, S::kUnsettled, ""},
    {S::kUnsettled, R::kCreateBackup, S::kUnsettled, kWait},
    {S::kUnsettled, R::kWaitForLsn, S::kUnsettled, kWait},
    {S::kUnsettled, R::kDemote, S::kUnsettled, kWait},
    {S::kUnsettled, R::kUndoDemote, S::kUnsettled, kWait},
    {S::kUnsettled, R::kFollowPrimary, S::kUnsettled, ""},
    {S::kUnsettled, R::kRewind, S::kStandby, ""},
    {S::kUnsettled, R::kClone, S::kStandby, ""},
    {S::kUnsettled, R::kControlReplay, S::kUnsettled, kWait},
    {S::kUnsettled, R::kChangeSynchronous, S::kUnsettled, kWait},
    {S::kUnsettled, R::kReconcileSlots, S::kUnsettled, kWait},
    {S::kUnsettled, R::kRenewLease, S::kUnsettled, ""},
}};

}  // namespace

std::span<const RoleRule> RoleTable() { return kTable; }

const RoleRule& FindRule(RoleState state, RoleRequest request) {
  const size_t index = static_cast<size_t>(state) * static_cast<size_t>(kRoleRequests) +
                       static_cast<size_t>(request);
  METAL_CHECK(index < kTable.size());
  const RoleRule& rule = kTable[index];
  METAL_CHECK(rule.state == state && rule.request == request);
  return rule;
}

absl::Status CheckRequest(RoleState state, RoleRequest request) {
  const RoleRule& rule = FindRule(state, request);
  if (rule.allowed()) return absl::OkStatus();
  const bool fenced = rule.refusal == kFencedText;
  return base::WithReason(base::Error(absl::StatusCode::kFailedPrecondition, "{} refused: {}",
                                      RoleRequestName(request), rule.refusal),
                          {.reason = fenced ? "FENCED" : "ROLE_TRANSITION",
                           .metadata = {{"state", std::string(RoleStateName(state))},
                                        {"request", std::string(RoleRequestName(request))}}});
}

RoleState ClassifyRole(const TermRecord& record, const observe::PostgresSection& postgres) {
  using P = observe::PostgresState;
  const bool up =
      postgres.state == P::kRunning && postgres.role_observed != observe::Role::kUnknown;
  const bool read_write = up && postgres.role_observed == observe::Role::kPrimary;
  if (read_write) return record.MayRunAsPrimary() ? RoleState::kPrimary : RoleState::kRogue;
  if (record.fence.active) return RoleState::kFenced;
  if (up) return record.MayRunAsPrimary() ? RoleState::kPromoting : RoleState::kStandby;
  if (postgres.state == P::kNoDataDirectory) return RoleState::kEmpty;
  if (postgres.state == P::kStopped) return RoleState::kStopped;
  // A quarantined Postgres is down for good: it waits for an explicit start.
  if (postgres.state == P::kQuarantined) return RoleState::kStopped;
  return RoleState::kUnsettled;
}

std::string_view RoleStateName(RoleState state) {
  switch (state) {
    case RoleState::kEmpty:
      return "empty";
    case RoleState::kStopped:
      return "stopped";
    case RoleState::kStandby:
      return "standby";
    case RoleState::kPromoting:
      return "promoting";
    case RoleState::kPrimary:
      return "primary";
    case RoleState::kRogue:
      return "rogue primary";
    case RoleState::kFenced:
      return "fenced";
    case RoleState::kUnsettled:
      return "unsettled";
  }
  return "unknown";
}

std::string_view RoleRequestName(RoleRequest request) {
  switch (request) {
    case RoleRequest::kInitDataDirectory:
      return "init data directory";
    case RoleRequest::kRestoreBackup:
      return "restore backup";
    case RoleRequest::kStartStandby:
      return "start as standby";
    case RoleRequest::kStartPrimary:
      return "start as primary";
    case RoleRequest::kStop:
      return "stop";
    case RoleRequest::kRestart:
      return "restart";
    case RoleRequest::kChangeConfig:
      return "change config";
    case RoleRequest::kBeginTerm:
      return "begin term";
    case RoleRequest::kPromote:
      return "promote";
    case RoleRequest::kFence:
      return "fence";
    case RoleRequest::kUnfence:
      return "unfence";
    case RoleRequest::kCreateBackup:
      return "create backup";
    case RoleRequest::kWaitForLsn:
      return "wait for LSN";
    case RoleRequest::kDemote:
      return "demote";
    case RoleRequest::kUndoDemote:
      return "undo demote";
    case RoleRequest::kFollowPrimary:
      return "follow primary";
    case RoleRequest::kRewind:
      return "rewind";
    case RoleRequest::kClone:
      return "clone";
    case RoleRequest::kControlReplay:
      return "control replay";
    case RoleRequest::kChangeSynchronous:
      return "set synchronous standbys";
    case RoleRequest::kReconcileSlots:
      return "reconcile replication slots";
    case RoleRequest::kRenewLease:
      return "renew lease";
  }
  return "unknown";
}

}  // namespace metal::node
