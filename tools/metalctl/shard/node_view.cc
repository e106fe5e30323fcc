#include "tools/metalctl/shard/node_view.h"

#include <algorithm>
#include <utility>

#include "tools/metalctl/format.h"

namespace metal::shard {
namespace {

namespace v1 = ::metal::agent::v1;

NodeRole RoleOf(v1::Role role) {
  if (role == v1::ROLE_PRIMARY) return NodeRole::kPrimary;
  return role == v1::ROLE_STANDBY ? NodeRole::kStandby : NodeRole::kUnknown;
}

ServerState StateOf(v1::PostgresState state) {
  switch (state) {
    case v1::POSTGRES_STATE_NO_DATA_DIRECTORY:
      return ServerState::kEmpty;
    case v1::POSTGRES_STATE_STOPPED:
      return ServerState::kStopped;
    case v1::POSTGRES_STATE_STARTING:
      return ServerState::kStarting;
    case v1::POSTGRES_STATE_RUNNING:
      return ServerState::kRunning;
    case v1::POSTGRES_STATE_UNRESPONSIVE:
      return ServerState::kStuck;
    case v1::POSTGRES_STATE_STOPPING:
    case v1::POSTGRES_STATE_CRASHED:
    case v1::POSTGRES_STATE_QUARANTINED:
      return ServerState::kDown;
    default:
      return ServerState::kUnknown;
  }
}

absl::Duration DurationOf(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

void ReadPostgres(const v1::PostgresStatus& postgres, NodeView& view) {
  view.server = StateOf(postgres.state());
  view.server_reason = postgres.state_reason();
  if (view.server == ServerState::kRunning) view.role = RoleOf(postgres.role_observed());
  view.version = postgres.version_num();
  view.system_id = postgres.system_identifier();
  view.timeline = postgres.timeline();
  view.seen = DurationOf(postgres.observe_age());
  view.received = {postgres.flush_lsn() != 0 ? postgres.flush_lsn() : postgres.current_lsn()};
  view.replayed = view.received;
  view.synchronous_standbys = postgres.synchronous_standby_names();
}

void ReadStandby(const v1::StandbyStatus& standby, NodeView& view) {
  view.receiver_state = standby.receiver_state();
  view.sender_host = standby.sender_host();
  view.sender_port = standby.sender_port();
  view.slot = standby.slot_name();
  view.received = {std::max(standby.flushed_lsn(), standby.replayed_lsn())};
  view.replayed = {standby.replayed_lsn()};
  if (standby.received_timeline() != 0) view.timeline = standby.received_timeline();
  if (standby.has_lag_bytes()) view.lag_bytes = standby.lag_bytes();
  if (standby.has_lag()) view.lag = DurationOf(standby.lag());
  view.replay_paused = standby.replay_paused();
}

// The worst verdict of all probes; "-" when nothing is probed.
std::string DiskVerdict(const v1::NodeStatus& status) {
  v1::ProbeState worst = v1::PROBE_STATE_UNSPECIFIED;
  for (const auto& disk : status.disks()) {
    for (const auto& probe : disk.probes()) {
      if (probe.state() != v1::PROBE_STATE_UNSUPPORTED) worst = std::max(worst, probe.state());
    }
  }
  if (worst == v1::PROBE_STATE_UNSPECIFIED) return "-";
  return ctl::EnumWord(v1::ProbeState_Name(worst), "PROBE_STATE_");
}

std::optional<absl::Duration> BackupAge(const v1::NodeStatus& status) {
  for (const auto& backup : status.backups().latest()) {  // newest first
    if (backup.state() != v1::BACKUP_STATE_COMPLETE) continue;
    return absl::Seconds(status.capture_time().seconds() - backup.stop_time().seconds());
  }
  return std::nullopt;
}

bool IsConfirmed(const v1::Fault& fault) {
  return fault.disk().confidence() == v1::FAULT_CONFIDENCE_CONFIRMED;
}

// Confirmed, of the database's disks (for a repository nobody has to lead elsewhere), and not
// taken for known by an operator.
bool Counts(const v1::Fault& fault) {
  const auto& roles = fault.disk().roles();
  const bool database = std::any_of(roles.begin(), roles.end(),
                                    [](const std::string& role) { return role != "repository"; });
  return IsConfirmed(fault) && database && !fault.disk().has_acknowledgement();
}

FaultWish WishOf(const v1::Fault& fault) {
  if (!Counts(fault)) return FaultWish::kNothing;
  switch (fault.disk().reaction()) {
    case v1::FAULT_REACTION_DRAIN:
      return FaultWish::kReparent;
    case v1::FAULT_REACTION_DEMOTE:
      return FaultWish::kFailover;
    default:
      return FaultWish::kNothing;
  }
}

}  // namespace

std::string_view ServerStateName(ServerState state) {
  switch (state) {
    case ServerState::kUnknown:
      return "not seen yet";
    case ServerState::kEmpty:
      return "no data";
    case ServerState::kStopped:
      return "stopped";
    case ServerState::kStarting:
      return "starting";
    case ServerState::kRunning:
      return "running";
    case ServerState::kStuck:
      return "stuck";
    case ServerState::kDown:
      return "down";
  }
  return "unknown";
}

const NodeFault* NodeView::condemned_by() const {
  const NodeFault* worst = nullptr;
  if (!answered) return worst;
  const auto rank = [](const NodeFault& fault) {
    return std::pair(fault.wanted, fault.fatal_disk);
  };
  for (const NodeFault& fault : faults) {
    if (fault.wanted == FaultWish::kNothing && !fault.fatal_disk) continue;
    if (worst == nullptr || rank(fault) > rank(*worst)) worst = &fault;
  }
  return worst;
}

bool NodeView::fenced_by_disk() const {
  return answered && fenced && fence_reason.starts_with("disk: ");
}

bool NodeView::has_fatal_disk() const {
  return answered && std::any_of(faults.begin(), faults.end(),
                                 [](const NodeFault& fault) { return fault.fatal_disk; });
}

std::string NodeView::CondemnedFor() const {
  const NodeFault* const fault = condemned_by();
  if (fault != nullptr) return fault->fault_class + " " + fault->subject;
  return fenced_by_disk() ? "fenced: " + fence_reason : "";
}

NodeView ViewOf(std::string id, const v1::NodeStatus& status) {
  NodeView view;
  view.id = std::move(id);
  view.answered = true;
  view.node_id = status.node().node_id();
  view.cluster_id = status.node().cluster_id();
  view.term = status.node().term();
  view.orchestrator = status.node().term_orchestrator_id();
  view.fenced = status.node().fenced();
  view.fence_reason = status.node().fence_reason();
  view.fence_term = status.node().fence_term();
  view.wanted = RoleOf(status.node().role_wanted());
  for (const auto& entry : status.term_history()) {
    view.last_led_term = std::max(view.last_led_term, entry.term());
  }
  ReadPostgres(status.postgres(), view);
  if (status.has_standby()) ReadStandby(status.standby(), view);
  view.followers_seen = status.has_followers_observe_age();
  for (const auto& each : status.followers()) {
    view.followers.push_back({.name = each.application_name(),
                              .state = each.state(),
                              .sync_state = each.sync_state(),
                              .flushed = {each.flush_lsn()}});
  }
  for (const auto& each : status.durability()) {
    view.durability.push_back({each.copies(), {each.members().begin(), each.members().end()}});
  }
  if (status.has_gate() && status.gate().state() > v1::GATE_STATE_OFF) {
    view.gate = ctl::EnumWord(v1::GateState_Name(status.gate().state()), "GATE_STATE_");
    view.gate_reason = status.gate().reason();
    view.gate_target = {status.gate().host(), status.gate().port()};
  }
  view.disk = DiskVerdict(status);
  view.backup_age = BackupAge(status);
  view.archive_error = status.archive().last_error();
  if (status.has_operation()) view.operation = status.operation().kind();
  for (const auto& fault : status.faults()) {
    view.faults.push_back(
        {.fault_class = fault.fault_class(),
         .subject = fault.subject(),
         .message = fault.message(),
         .severe = fault.severity() >= v1::SEVERITY_ERROR && !fault.disk().has_acknowledgement(),
         .fatal_disk = Counts(fault) && fault.disk().fatal(),
         .wanted = WishOf(fault)});
  }
  for (const auto& disk : status.disks()) {
    if (!disk.slowness().has_median_excess() || disk.slowness().learning()) continue;
    for (const std::string& role : disk.roles()) {
      view.disk_excess.push_back(
          {role, disk.slowness().median_excess(), disk.slowness().p99_excess()});
    }
  }
  return view;
}

NodeView UnreachableView(std::string id, std::string why) {
  NodeView view;
  view.id = std::move(id);
  view.no_answer = std::move(why);
  return view;
}

}  // namespace metal::shard
