// Node's part in a primary's lease: renew it, and end the server when it has run out. lease.h says
// what is promised; what must hold without this process is the lease guard's.
//
// What if the agent dies here?
//   While a lease is given: the page is armed before the order is stored. An armed page without an
//   order is disarmed by the next agent once the server is seen to be a standby.
//   While a lease ends: the next agent finds it over (the time has passed) and ends it again; until
//   then the guard does.
#include <algorithm>

#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/steps/role_steps.h"

namespace metal::node {

namespace {

constexpr absl::Duration kSoonest = absl::Milliseconds(10);  // between two looks at a lease
constexpr absl::Duration kRetry = absl::Milliseconds(100);   // while another action holds the node
constexpr const char* kFault = "lease_expired";

// What is left until the guard kills, for the two gentler ways to stop.
StandbyRestart ForceWithin(absl::Duration lead) {
  StandbyRestart options;
  options.drain = false;
  options.despite_sources = true;
  options.stop_timeout = lead * 2 / 5;
  options.escalation_timeout = lead / 5;
  options.escalate_to = pg::StopMode::kKill;
  return options;
}

absl::Duration LeadOf(absl::Duration ttl) {
  const pg::LeaseTimes times = pg::LeaseTimesOf({}, ttl);
  return times.deadline - times.ordered_stop;
}

}  // namespace

absl::StatusOr<RenewLeaseAnswer> Node::RenewLease(const RenewLeaseRequest& request) {
  const base::MonotonicTime arrived = parts_.clock.SinceBoot();
  // Its reasons are more exact than the table's.
  METAL_RETURN_IF_ERROR(ApplyRenewLease(parts_.terms.Get(), request.holder, request.ttl).status());
  METAL_RETURN_IF_ERROR(CheckRequest(CurrentRoleState(), RoleRequest::kRenewLease));
  METAL_RETURN_IF_ERROR(parts_.terms.RenewLease(request.holder, {request.ttl, arrived}));
  LeaseChanged();
  RenewLeaseAnswer answer;
  if (parts_.lease != nullptr) {
    answer.renew_within = parts_.lease->UntilStop().value_or(absl::ZeroDuration());
  }
  return answer;
}

// The watch may sleep for longer than the new ttl.
void Node::LeaseChanged() {
  base::MutexLock lock(mutex_);
  lease_changed_ = true;
  wake_.NotifyAll();
}

// Not longer than until the next thing that a lease needs.
absl::Duration Node::NextLook() const {
  if (parts_.lease == nullptr) return absl::InfiniteDuration();
  const auto left = parts_.lease->UntilStop();
  if (!left) return absl::InfiniteDuration();
  // Over, and still armed: the end has begun or waits for another action.
  if (*left <= absl::ZeroDuration()) return kRetry;
  return std::max(*left, kSoonest);
}

void Node::CheckLease() {
  if (parts_.lease == nullptr) return;
  const TermRecord record = parts_.terms.Get();
  ReportLease(record);
  if (record.HasLease() && !record.lease.expired) {
    lease_seen_running_ = true;
    if (parts_.lease->guarded()) return;
    if (const absl::Status guarded = parts_.lease->EnsureGuard(); !guarded.ok()) {
      base::LogWarning("event=lease_guard message=\"{}\"", std::string(guarded.message()));
    }
    return;
  }
  if (record.HasLease()) {
    EndLease(record);
    return;
  }
  lease_seen_running_ = false;
  DisarmBehindLease();
}

void Node::ReportLease(const TermRecord& record) {
  // In a later term nothing is forbidden any more: the node follows, or is promoted.
  if (!record.LeaseRanOut()) {
    parts_.board.ClearFault(kFault, "postgres");
    return;
  }
  observe::Fault fault;
  fault.fault_class = kFault;
  fault.subject = "postgres";
  fault.severity = observe::Severity::kCritical;
  fault.message = fmt::format(
      "the lease of {} in term {} was not renewed in time; the node is no primary until a "
      "higher term begins",
      absl::FormatDuration(record.lease.ttl), record.lease.term);
  fault.since = parts_.clock.Now();
  if (parts_.board.Get()->faults.contains(fault.fault_class + "/" + fault.subject)) return;
  parts_.board.RaiseFault(std::move(fault));
}

// The lease has run out and is stored as running. The operation stores that it ran out; when it did
// not come so far, this does.
void Node::EndLease(const TermRecord& record) {
  if (lease_ended_term_ == record.lease.term) {
    if (parts_.operations.action_lock().Current()) return;
    const absl::Status stored = parts_.terms.ExpireLease();
    if (!stored.ok()) base::LogWarning("event=end_lease message=\"{}\"", stored.ToString());
    return;
  }
  OperationSpec spec;
  spec.kind = "EndLease";
  spec.subject = fmt::format("term {}", record.lease.term);
  spec.term = record.lease.term;
  spec.request.caller = "role watch";
  spec.parameters = {{"ttl", absl::FormatDuration(record.lease.ttl)}};
  const bool was_ours = lease_seen_running_;
  const auto started = parts_.operations.Start(
      std::move(spec),
      [this, was_ours](OperationContext& context) { return RunLeaseEnd(context, was_ours); });
  if (!started.ok()) {
    base::LogWarning("event=end_lease message=\"{}\"", std::string(started.status().message()));
    return;
  }
  lease_ended_term_ = record.lease.term;
  Emit(parts_.events, observe::Severity::kCritical, "lease.expired", "postgres",
       fmt::format("the lease of term {} was not renewed within {}: the server is stopped and "
                   "started as a standby",
                   record.lease.term, absl::FormatDuration(record.lease.ttl)),
       {{"term", fmt::format("{}", record.lease.term)}});
}

// `was_ours`: this process saw the lease running, so the server is a primary, or about to be one,
// and is stopped without being asked. One that ran out while no agent looked may be a standby by
// now: then it is asked.
absl::StatusOr<OperationResult> Node::RunLeaseEnd(OperationContext& context, bool was_ours) {
  const TermRecord record = parts_.terms.Get();
  if (!record.lease.expired) return OperationResult{};  // a new term has begun meanwhile
  METAL_RETURN_IF_ERROR(base::FaultPoint("lease.before_stop"));
  RoleStepContext steps = StepsOf(context);
  const auto running = parts_.supervisor.postmaster();
  const bool alive = running != nullptr && running->alive();
  absl::StatusOr<OperationResult> result = OperationResult{"", {{"was_primary", "false"}}};
  if (alive && was_ours) {
    // No session and no stored role first: neither SQL nor a disk may delay the stop. Whatever
    // starts from now on asks the term store, which says standby.
    const absl::Status restarted =
        RestartAsStandby(steps, nullptr, ForceWithin(LeadOf(record.lease.ttl)));
    result = restarted.ok()
                 ? absl::StatusOr<OperationResult>(OperationResult{"", {{"was_primary", "true"}}})
                 : restarted;
  } else {
    result = RunFence(context);
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("lease.stopped"));
  if (parts_.lease->guard_fired()) {
    Emit(parts_.events, observe::Severity::kCritical, "lease.guard_fired", "postgres",
         fmt::format("the lease guard ended the server of term {}", record.lease.term));
  }
  METAL_RETURN_IF_ERROR(parts_.terms.ExpireLease());
  return result;
}

// A page that is armed beyond its order (another term has begun, the node was fenced) still guards
// the old primary. It is of no use once no such server is left.
// The order of the looks matters: who gives a lease holds the action lock, or has stored it by the
// time that the lock is seen free, and what is given after that has another time to kill.
void Node::DisarmBehindLease() {
  const auto kill = parts_.lease->KillTime();
  const uint64_t armed_term = parts_.lease->term();
  if (!kill || parts_.operations.action_lock().Current()) return;
  const TermRecord record = parts_.terms.Get();
  if (record.HasLease()) return;
  const auto seen = parts_.board.Get();
  const auto running = parts_.supervisor.postmaster();
  const ServerBehindLease server{seen->postgres, running == nullptr ? 0 : running->pid(),
                                 promoted_pid_};
  if (GuardsNothing(record, armed_term, server)) parts_.lease->DisarmAt(*kill);
}

}  // namespace metal::node
