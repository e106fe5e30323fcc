// One node of the shard in memory.
#include <algorithm>
#include <utility>

#include "agent/base/status.h"
#include "agent/pg/durability.h"
#include "tests/unit/shard/fake_shard.h"

namespace metal::shard {
namespace {

absl::Status Refused(const std::string& reason, const std::string& message) {
  return base::WithReason(absl::FailedPreconditionError(message + ". HINT: test"), {reason, {}});
}

}  // namespace

// A call begins with this. After a call that took effect while the operator died, the answer is
// lost.
#define REACHED()                       \
  do {                                  \
    absl::Status error;                 \
    if (!Reached(&error)) return error; \
  } while (false)
#define ANSWER(value)                                                         \
  do {                                                                        \
    if (shard_.answer_lost_) return absl::CancelledError("metalctl is dead"); \
    return value;                                                             \
  } while (false)

bool FakeNode::Reached(absl::Status* error) {
  if (!shard_.Count(&shard_.answer_lost_, &shard_.halfway_)) {
    *error = absl::CancelledError("metalctl is dead");
    return false;
  }
  shard_.Tick();
  if (reachable) return true;
  *error = absl::UnavailableError("no agent answers");
  return false;
}

absl::Status FakeNode::CheckHolder(const TermHolder& holder) const {
  if (holder.term != stored.term) return Refused("STALE_TERM", "another term is stored");
  if (holder.orchestrator != stored.orchestrator) return Refused("TERM_HELD", "held by another");
  return absl::OkStatus();
}

absl::Status FakeNode::CheckNotStale(const TermHolder& holder) const {
  if (holder.term < stored.term) return Refused("STALE_TERM", "a higher term is stored");
  return holder.term == stored.term ? CheckHolder(holder) : absl::OkStatus();
}

void FakeNode::Store(const TermHolder& holder, NodeRole role) {
  stored = holder;
  wanted = role;
}

void FakeNode::BecomeStandby() {
  wal.received.value += 0x10;  // the shutdown checkpoint
  shard_.Flow();
  read_write = false;
  source.reset();
}

WalPoint FakeNode::BecomePrimary() {
  pg::DurabilityRecord record;
  for (const DurabilityRule& rule : wal.durability) record.push_back({rule.copies, rule.members});
  if (!synchronous.empty())
    synchronous = pg::RenderPolicy(pg::CoveringPolicy(Id(), *pg::ParsePolicy(synchronous), record));
  wal.history.push_back({wal.timeline, wal.received});
  ++wal.timeline;
  wal.received.value += 0x10;
  if (wal.terms.empty() || wal.terms.back().term != stored.term) {
    wal.terms.push_back({stored.term, wal.timeline, wal.received, Id()});
  }
  Record(RuleInForce());
  read_write = true;
  source.reset();
  return {wal.timeline, wal.received};
}

absl::StatusOr<NodeView> FakeNode::GetStatus(absl::Duration) {
  REACHED();
  const bool starts = starts_for > 0;
  if (starts) --starts_for;
  NodeView view = HealthyNode(Id());
  view.term = stored.term;
  view.orchestrator = stored.orchestrator;
  view.wanted = wanted;
  view.fenced = fenced;
  view.fence_reason = fence_reason;
  if (server_up && !empty && !wal.terms.empty()) view.last_led_term = wal.terms.back().term;
  view.server = empty       ? ServerState::kEmpty
                : hangs     ? ServerState::kStuck
                : starts    ? ServerState::kStarting
                : server_up ? ServerState::kRunning
                            : ServerState::kStopped;
  view.system_id = empty ? 0 : system_id.value_or(view.system_id);
  view.role = !view.running() ? NodeRole::kUnknown
              : read_write    ? NodeRole::kPrimary
                              : NodeRole::kStandby;
  view.timeline = wal.timeline;
  view.received = view.replayed = {wal.received.value - status_behind};
  view.replay_paused = replay_paused;
  view.synchronous_standbys = synchronous;
  if (view.running()) view.durability = wal.durability;
  view.gate = !has_door ? "" : door_held ? "held" : "open";
  view.gate_target = door;
  view.disk = disk_sick ? "stalled" : "healthy";
  if (disk_condemned) view.faults.push_back(ConfirmedFault(FaultWish::kFailover));
  const bool streams = shard_.Streams(*this) || (missed_wal && flickers && source);
  view.receiver_state = streams ? "streaming" : "";
  view.sender_host = streams ? shard_.config_.nodes[*source].postgres.host : "";
  view.sender_port = streams ? 5432 : 0;
  view.slot = streams ? SlotName(Id()) : "";
  view.followers_seen = view.is_primary();
  for (size_t i = 0; view.is_primary() && i < shard_.size(); ++i) {
    const FakeNode& other = shard_.at(i);
    if (other.source != index_ || !shard_.Streams(other)) continue;
    const bool counts = synchronous.find('"' + other.Id() + '"') != std::string::npos;
    view.followers.push_back({other.Id(), "streaming", counts ? "quorum" : "async",
                              other.lags ? base::Lsn{1} : other.wal.received});
  }
  if (says) says(view);
  ANSWER(view);
}

absl::StatusOr<TermAnswer> FakeNode::BeginTerm(const TermHolder& holder, absl::Duration patience) {
  REACHED();
  if (denies_terms) return absl::PermissionDeniedError("the caller's role may not do this");
  METAL_RETURN_IF_ERROR(CheckNotStale(holder));
  if (holder.term == stored.term && wanted == NodeRole::kPrimary) {
    return Refused("ROLE_TRANSITION", "it is the primary of this term");
  }
  Store(holder, NodeRole::kStandby);
  if ((hangs || answers_last) && shard_.abandoned_) return absl::CancelledError("not waited for");
  if (hangs) {
    shard_.clock_.Advance(patience);
    return absl::DeadlineExceededError("no answer in time");
  }
  TermAnswer answer;
  answer.was_primary = IsPrimary();
  if (answer.was_primary) BecomeStandby();
  if (server_up) source.reset();
  answer.postgres_down = !server_up;
  if (!empty && server_up) answer.position = wal;
  ANSWER(answer);
}

absl::StatusOr<WalPoint> FakeNode::Promote(const TermHolder& holder) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  if (fenced) return Refused("FENCED", "fenced");
  const TermStart last = wal.terms.empty() ? TermStart() : wal.terms.back();
  if (last.term > holder.term || (last.term == holder.term && last.node != Id())) {
    return Refused("HISTORY_DIVERGED", "the WAL here had a later term");
  }
  if (refuses_promotion) return Refused("ROLE_TRANSITION", "refused");
  if (!server_up || hangs) return Refused("ROLE_TRANSITION", "PostgreSQL is stopped");
  wanted = NodeRole::kPrimary;
  if (shard_.halfway_) return absl::CancelledError("metalctl is dead");
  const WalPoint point = read_write ? WalPoint{wal.timeline, wal.received} : BecomePrimary();
  ANSWER(point);
}

absl::Status FakeNode::PrepareDemote(const TermHolder& holder) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckNotStale(holder));
  ANSWER(absl::OkStatus());
}

absl::StatusOr<WalPoint> FakeNode::Demote(const TermHolder& holder) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckNotStale(holder));
  if (const auto first = std::exchange(before_demote, nullptr)) first();
  const bool was_primary = IsPrimary();
  Store(holder, NodeRole::kStandby);
  demoted_by_ = holder;
  if (hangs) return absl::DeadlineExceededError("did not shut down in time");
  shard_.clock_.Advance(shutdown_takes);
  if (was_primary) BecomeStandby();
  const WalPoint point{wal.timeline, wal.received};
  ANSWER(point);
}

absl::Status FakeNode::UndoDemote(const TermHolder& holder) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  if (!demoted_by_ || demoted_by_->term != holder.term)
    return Refused("ROLE_TRANSITION", "no demotion");
  if (hangs) return absl::DeadlineExceededError("no answer in time");
  wanted = NodeRole::kPrimary;
  if (!read_write) BecomePrimary();
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::FollowPrimary(const TermHolder& holder, const HostPort& primary,
                                     FollowBy by) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckNotStale(holder));
  if (empty || IsPrimary()) return Refused("ROLE_TRANSITION", "it is no standby");
  if (holder.term == stored.term && wanted == NodeRole::kPrimary) {
    return Refused("ROLE_TRANSITION", "a promotion was ordered");
  }
  for (size_t i = 0; i < shard_.size(); ++i) {
    if (shard_.config_.nodes[i].postgres != primary) continue;
    const FakeNode& other = shard_.at(i);
    const Ancestry ancestry = Compare(wal, other.wal);
    const bool checked = unchecked_follows == 0;
    if (!checked) --unchecked_follows;
    if (checked && server_up && other.server_up &&
        (ancestry == Ancestry::kAhead || ancestry == Ancestry::kDiverged)) {
      return Refused("DIVERGED", "it has WAL that the source does not have");
    }
    Store(holder, NodeRole::kStandby);
    demoted_by_.reset();
    source = i;
    without_slot = by == FollowBy::kNoSlot;
  }
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::WaitForLsn(const WalPoint& point, absl::Duration patience) {
  REACHED();
  shard_.Flow();
  if (wal.received >= point.lsn) ANSWER(absl::OkStatus());
  shard_.clock_.Advance(patience);
  return absl::DeadlineExceededError("not received in time. HINT: test");
}

absl::StatusOr<WalPoint> FakeNode::EndOfWal() {
  REACHED();
  if (empty || !server_up || hangs) return absl::DeadlineExceededError("no answer in time");
  const WalPoint end{wal.timeline, wal.received};
  ANSWER(end);
}

absl::Status FakeNode::SetSynchronousStandbys(const TermHolder& holder,
                                              const SynchronousChange& change) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  const std::string value = change.policy.Setting(change.standbys);
  if (synchronous != change.expected && synchronous != value) {
    return Refused("SYNCHRONOUS_CHANGED", "they are " + synchronous);
  }
  if (!IsPrimary()) {
    synchronous = value;
    ANSWER(absl::OkStatus());
  }
  const std::string before = std::exchange(synchronous, value);
  Record(RuleInForce());
  shard_.Flow();
  if (!change.accept_data_loss && !shard_.Recorded(*this)) {
    synchronous = before;
    return Refused("DURABILITY_UNTOLD", "standbys of " + before + " do not know it");
  }
  wal.durability = {RuleInForce()};
  shard_.Flow();
  ANSWER(absl::OkStatus());
}

DurabilityRule FakeNode::RuleInForce() const {
  const pg::DurabilityRule rule = pg::RuleOf(Id(), *pg::ParsePolicy(synchronous));
  return {rule.copies, rule.members};
}

void FakeNode::Record(const DurabilityRule& rule) {
  if (std::ranges::find(wal.durability, rule) == wal.durability.end()) {
    wal.durability.push_back(rule);
  }
}

absl::Status FakeNode::ReconcileSlots(const TermHolder& holder,
                                      const std::vector<std::string>& wanted_slots) {
  REACHED();
  if (const auto first = std::exchange(before_slots, nullptr)) first();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  slots = {wanted_slots.begin(), wanted_slots.end()};
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::StartPostgres() {
  REACHED();
  if (empty) return Refused("DATA_DIRECTORY_MISSING", "no data");
  if (!server_up && disk_full) return Refused("NO_SPACE", "the disk is full");
  if (!server_up) read_write = read_write && wanted == NodeRole::kPrimary;
  server_up = true;
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::HoldTraffic(const TermHolder& holder) {
  REACHED();
  if (holder.term < stored.term || holder.term < door_term) return Refused("STALE_TERM", "door");
  if (door_refuses) return Refused("GATE_TRANSACTIONS", "transactions do not end");
  door_term = holder.term;
  door_held = true;
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::ReleaseTraffic(const TermHolder& holder, const HostPort& primary) {
  REACHED();
  if (holder.term < stored.term || holder.term < door_term) return Refused("STALE_TERM", "door");
  door_term = holder.term;
  door_held = false;
  door = primary;
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::InitDataDirectory(const InitOptions&) {
  REACHED();
  if (!empty) return Refused("DATA_DIRECTORY_NOT_EMPTY", "there is one");
  empty = server_up = read_write = false;
  wal = {1, {0x1000}, {}};
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::Clone(const TermHolder& holder, const CloneSource& from) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  if (!empty && !from.replace) return Refused("DATA_DIRECTORY_NOT_EMPTY", "there is one");
  if (IsPrimary()) return Refused("ROLE_TRANSITION", "it is the primary");
  for (size_t i = 0; i < shard_.size(); ++i) {
    if (shard_.config_.nodes[i].transfer == from.transfer) {
      if (shard_.at(i).replay_paused) return Refused("", "the source's replay is paused");
      wal = shard_.at(i).wal;
      copied_from = i;
    }
    if (shard_.config_.nodes[i].postgres == from.primary) source = i;
  }
  cloned_at = from.bytes_per_second_max;
  empty = false;
  server_up = true;
  refuses_rewind.clear();
  missed_wal = false;
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::Unfence(const TermHolder& holder) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  fenced = false;
  fence_reason.clear();
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::Rewind(const TermHolder& holder, const HostPort& primary) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  if (!refuses_rewind.empty()) return Refused(refuses_rewind, "it cannot be rewound");
  if (IsPrimary()) return Refused("ROLE_TRANSITION", "it is no standby");
  for (size_t i = 0; i < shard_.size(); ++i) {
    if (shard_.config_.nodes[i].postgres != primary || !shard_.at(i).IsPrimary()) continue;
    wal = shard_.at(i).wal;
    source = i;
    server_up = true;
    read_write = false;
    demoted_by_.reset();
  }
  ANSWER(absl::OkStatus());
}

absl::Status FakeNode::TryRewind(const TermHolder& holder, const HostPort& primary) {
  REACHED();
  METAL_RETURN_IF_ERROR(CheckHolder(holder));
  if (IsPrimary()) return Refused("ROLE_TRANSITION", "it is no standby");
  for (size_t i = 0; i < shard_.size(); ++i) {
    if (shard_.config_.nodes[i].postgres != primary) continue;
    if (cut_off) return absl::UnavailableError("the source does not answer");
    if (missed_wal && Has(shard_.at(i).wal, wal)) return Refused("WAL_MISSING", "WAL is gone");
  }
  ANSWER(absl::OkStatus());
}

// What the thread of the heartbeat does. Who streams has what was recorded at the tick before.
void FakeNode::KeepRecord() {
  const DurabilityRule rule = RuleInForce();
  const bool known = std::ranges::find(wal.durability, rule) != wal.durability.end();
  if (known && shard_.Recorded(*this)) wal.durability = {rule};
  Record(rule);
}

}  // namespace metal::shard
