// Node's verbs for durability: who must acknowledge commits, and which slots keep WAL for whom.
//
// What if the agent dies here? SetSynchronousStandbys goes through a policy that implies the old
// and the new one: whichever of the three is in metal.conf, no commit counts for less than the
// caller believes, and the value tells how far it came. The record says both until it is over; the
// heartbeat's thread takes the old one away. A slot's name is recorded before the slot
// is made.
#include <algorithm>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/role_answers.h"
#include "agent/node/slot_record.h"
#include "agent/node/steps/role_steps.h"
#include "agent/node/steps/synchronous_steps.h"
#include "agent/pg/durability_record.h"
#include "agent/pg/promotion.h"
#include "agent/pg/replication.h"
#include "agent/pg/replication_slots.h"
#include "agent/pg/settings.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kLongestWait = absl::Minutes(10);
constexpr absl::Duration kCheckpoint = absl::Minutes(10);

// In metal.conf while the server is down.
absl::StatusOr<std::string> StoredValue(const std::string& data_dir) {
  METAL_ASSIGN_OR_RETURN(pg::ManagedSettings settings, pg::LoadManagedSettings(data_dir));
  return settings.agent[kSynchronousSetting];
}

absl::Status Changed(const std::string& expected, const std::string& found) {
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "synchronous standbys are \"{}\", not \"{}\" as expected. HINT: read the status "
                  "and decide again",
                  found, expected),
      {"SYNCHRONOUS_CHANGED", {{"value", found}}});
}

std::vector<std::string> WordsIn(const OperationResult& result, const std::string& key) {
  return absl::StrSplit(TextIn(result, key), ' ', absl::SkipEmpty());
}

}  // namespace

absl::StatusOr<SetSynchronousStandbysAnswer> Node::SetSynchronousStandbys(
    const RequestContext& context, const SetSynchronousStandbysRequest& request) {
  if (request.timeout <= absl::ZeroDuration() || request.timeout > kLongestWait) {
    return absl::InvalidArgumentError("timeout must be above 0 and at most 10 minutes");
  }
  METAL_RETURN_IF_ERROR(pg::CheckPolicy(request.policy));
  METAL_RETURN_IF_ERROR(pg::ParsePolicy(request.expected).status());
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  OperationResult result;
  if (earlier) {
    result = *earlier;
  } else {
    METAL_RETURN_IF_ERROR(Admit(RoleRequest::kChangeSynchronous));
    OperationSpec spec = Spec(context, "SetSynchronousStandbys", TermSubject(request.holder));
    spec.term = request.holder.term;
    spec.parameters = {{"policy", pg::RenderPolicy(request.policy)},
                       {"expected", request.expected}};
    METAL_ASSIGN_OR_RETURN(
        result, RunRoleChange(std::move(spec), [this, request](OperationContext& operation) {
          return RunSetSynchronous(operation, request);
        }));
  }
  return SetSynchronousStandbysAnswer{TextIn(result, "before"), TextIn(result, "after"),
                                      FlagIn(result, "acknowledged")};
}

absl::StatusOr<OperationResult> Node::RunSetSynchronous(
    OperationContext& context, const SetSynchronousStandbysRequest& request) {
  RoleStepContext steps = StepsOf(context);
  std::unique_ptr<pg::SqlSession> session;
  bool read_write = false;
  const auto running = parts_.supervisor.postmaster();
  if (running != nullptr && running->alive()) {
    METAL_ASSIGN_OR_RETURN(session, ConnectPatiently(steps, kQuery));
    METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
    read_write = !state.in_recovery;
  }
  METAL_ASSIGN_OR_RETURN(const std::string found, session != nullptr
                                                      ? ShowSetting(*session, kSynchronousSetting)
                                                      : StoredValue(steps.data_dir));
  METAL_ASSIGN_OR_RETURN(const pg::SynchronousPolicy before, pg::ParsePolicy(found));
  METAL_ASSIGN_OR_RETURN(const pg::SynchronousPolicy expected, pg::ParsePolicy(request.expected));
  OperationResult result;
  result.values = {{"before", pg::RenderPolicy(before)},
                   {"after", pg::RenderPolicy(request.policy)},
                   {"acknowledged", Flag(false)}};
  if (before != expected && before != request.policy) return Changed(request.expected, found);
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  if (!read_write) {
    METAL_RETURN_IF_ERROR(InstallPolicy(steps, session.get(), request.policy));
    return result;
  }
  METAL_RETURN_IF_ERROR(ChangePolicy(steps, *session, before, request, result));
  TellOfChange(result, request);
  return result;
}

void Node::TellOfChange(OperationResult& result, const SetSynchronousStandbysRequest& request) {
  const std::string &before = result.values["before"], &after = result.values["after"];
  std::string text = fmt::format("synchronous standbys: \"{}\", before \"{}\"", after, before);
  if (!request.reason.empty()) text += ": " + request.reason;
  const auto names = static_cast<int>(request.policy.names.size());
  const bool needs_all = names > 0 && names == request.policy.count;
  if (needs_all) text += ". Every one of them has to acknowledge: commits wait when one is lost";
  Emit(parts_.events, needs_all ? observe::Severity::kWarning : observe::Severity::kInfo,
       "replication.synchronous", "postgres", text,
       {{"before", before}, {"after", after}, {"reason", request.reason}});
}

// On a primary. While it runs, commits wait for `first`, which implies both policies.
absl::Status Node::ChangePolicy(RoleStepContext& steps, pg::SqlSession& session,
                                const pg::SynchronousPolicy& before,
                                const SetSynchronousStandbysRequest& request,
                                OperationResult& result) {
  const base::MonotonicTime end = parts_.clock.Monotonic() + request.timeout;
  const base::MutexLock turn(record_turn_.mutex);
  ++record_turn_.changes;
  const pg::SynchronousPolicy first =
      pg::Implies(before, request.policy)
          ? before
          : pg::Between(before, request.policy).value_or(request.policy);
  if (first != before) METAL_RETURN_IF_ERROR(InstallPolicy(steps, &session, first));
  const auto give_up = [&](const absl::Status& why) -> absl::Status {
    if (first == before) return base::Annotate(why, "the old ones are in force");
    METAL_RETURN_IF_ERROR(
        base::Annotate(InstallPolicy(steps, &session, before), "put the old standbys back"));
    return base::Annotate(why, "the old ones are in force again");
  };
  if (request.policy.count > 0) {
    const absl::Status acknowledged =
        AwaitAcknowledged(steps, session, request.policy, request.timeout);
    if (!acknowledged.ok()) return give_up(acknowledged);
    result.values["acknowledged"] = Flag(true);
  }
  const absl::StatusOr<bool> recorded = RecordChange(steps, session, before, request, end);
  if (!recorded.ok()) return give_up(recorded.status());
  if (before.count == 0 && request.policy.count > 0) {
    // The checkpointer turns waiting on for the whole server, between two pieces of its work.
    METAL_RETURN_IF_ERROR(pg::Checkpoint(session, kCheckpoint));
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.synchronous_acknowledged"));
  if (first != request.policy) {
    METAL_RETURN_IF_ERROR(InstallPolicy(steps, &session, request.policy));
  }
  if (!*recorded) return absl::OkStatus();
  // Nobody counts on the old one any more. When this is left out, the heartbeat's thread does it.
  return pg::WriteDurability(session, OwnerOfRecord(request.holder.term),
                             {pg::RuleOf(parts_.config.node_id, request.policy)}, kQuery);
}

// Both policies are recorded before a commit is acknowledged that only the new one counts, and
// nodes enough for either know it: whoever relies on the old one alone then meets one that does.
// False: the schema is not ours, and nothing is recorded.
absl::StatusOr<bool> Node::RecordChange(RoleStepContext& steps, pg::SqlSession& session,
                                        const pg::SynchronousPolicy& before,
                                        const SetSynchronousStandbysRequest& request,
                                        base::MonotonicTime end) {
  const absl::Status schema = pg::EnsureMetalSchema(session, kQuery);
  const auto foreign = base::GetReason(schema);
  if (foreign && foreign->reason == "METAL_SCHEMA_FOREIGN") return false;
  METAL_RETURN_IF_ERROR(schema);
  METAL_ASSIGN_OR_RETURN(const pg::DurabilityRecord found,
                         pg::QueryDurability(session, parts_.config.cluster_id, kQuery));
  pg::DurabilityRecord record = pg::With(found, pg::RuleOf(parts_.config.node_id, before));
  record = pg::With(std::move(record), pg::RuleOf(parts_.config.node_id, request.policy));
  if (record != found) {
    METAL_RETURN_IF_ERROR(
        pg::WriteDurability(session, OwnerOfRecord(request.holder.term), record, kQuery));
  }
  if (request.accept_data_loss) return true;
  const absl::Status told =
      AwaitRecorded(steps, session, parts_.config.node_id, record, end - parts_.clock.Monotonic());
  if (!absl::IsDeadlineExceeded(told)) {
    METAL_RETURN_IF_ERROR(told);
    return true;
  }
  return base::WithReason(
      base::Error(absl::StatusCode::kDeadlineExceeded,
                  "{}: one that was not told could prove, alone, what is no longer so. HINT: bring "
                  "one of them back, or accept_data_loss (metalctl: --accept-data-loss)",
                  std::string(told.message())),
      {"DURABILITY_UNTOLD", {}});
}

pg::DurabilityOwner Node::OwnerOfRecord(uint64_t term) const {
  return {parts_.config.node_id, parts_.config.cluster_id, term};
}

// Before a promotion. A standby may have been given a policy that is weaker than the recorded one,
// which others rely on as long as they do not know better: the new primary begins with one that
// implies both, and SetSynchronousStandbys makes it less.
absl::Status Node::KeepDurability(RoleStepContext& steps, pg::SqlSession& session) {
  METAL_ASSIGN_OR_RETURN(const pg::DurabilityRecord record,
                         pg::QueryDurability(session, parts_.config.cluster_id, kQuery));
  METAL_ASSIGN_OR_RETURN(const std::string found, ShowSetting(session, kSynchronousSetting));
  const pg::SynchronousPolicy policy = pg::ParsePolicy(found).value_or(pg::SynchronousPolicy());
  const pg::SynchronousPolicy covering = pg::CoveringPolicy(parts_.config.node_id, policy, record);
  // With no policy at all nobody is to be waited for: that is an order, and is only recorded.
  if (policy.count == 0 || covering == policy) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(InstallPolicy(steps, &session, covering));
  Emit(parts_.events, observe::Severity::kWarning, "replication.synchronous_kept", "postgres",
       fmt::format(
           "commits were recorded to count on more than \"{}\": until SetSynchronousStandbys "
           "changes it, they wait for \"{}\"",
           found, pg::RenderPolicy(covering)),
       {{"before", found}, {"after", pg::RenderPolicy(covering)}});
  return absl::OkStatus();
}

// After it, before anybody is led here. What is in force covers the record, so until this is
// written the older one is true as well.
void Node::NoteDurability(pg::SqlSession& session, uint64_t term) {
  base::Lsn since;
  const base::MutexLock turn(record_turn_.mutex);
  const auto kept = pg::KeepRecord(session, OwnerOfRecord(term), &since, kQuery);
  if (kept.ok() && kept->weaker) {
    Emit(
        parts_.events, observe::Severity::kWarning, "replication.synchronous_weaker", "postgres",
        fmt::format("promoted with synchronous_standby_names \"{}\", which asks for less than what "
                    "was recorded",
                    kept->in_force),
        {{"in_force", kept->in_force}, {"recorded", pg::EncodeDurability(kept->before)}});
  }
  if (kept.ok()) return;
  base::LogWarning("event=durability_record message=\"{}\"", std::string(kept.status().message()));
}

absl::StatusOr<ReconcileSlotsAnswer> Node::ReconcileReplicationSlots(
    const RequestContext& context, const ReconcileSlotsRequest& request) {
  for (const std::string& slot : request.slots) METAL_RETURN_IF_ERROR(pg::CheckSlotName(slot));
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  OperationResult result;
  if (earlier) {
    result = *earlier;
  } else {
    METAL_RETURN_IF_ERROR(Admit(RoleRequest::kReconcileSlots));
    OperationSpec spec = Spec(context, "ReconcileReplicationSlots", TermSubject(request.holder));
    spec.term = request.holder.term;
    spec.parameters = {{"slots", absl::StrJoin(request.slots, " ")}};
    METAL_ASSIGN_OR_RETURN(
        result, RunRoleChange(std::move(spec), [this, request](OperationContext& operation) {
          return RunReconcileSlots(operation, request);
        }));
  }
  return ReconcileSlotsAnswer{WordsIn(result, "created"), WordsIn(result, "dropped"),
                              WordsIn(result, "kept"), WordsIn(result, "foreign"),
                              WordsIn(result, "active")};
}

absl::StatusOr<OperationResult> Node::RunReconcileSlots(OperationContext& context,
                                                        const ReconcileSlotsRequest& request) {
  RoleStepContext steps = StepsOf(context);
  const SlotRecord record(base::JoinPath(parts_.config.state_dir, "replication_slots"));
  METAL_ASSIGN_OR_RETURN(std::set<std::string> ours, record.Load());
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectPatiently(steps, kQuery));
  METAL_ASSIGN_OR_RETURN(const std::vector<pg::SlotState> present,
                         pg::QuerySlots(*session, kQuery));
  const std::set<std::string> wanted(request.slots.begin(), request.slots.end());
  std::set<std::string> standing;
  std::map<std::string, std::string> lists;
  const auto add = [&](const char* list, const std::string& slot) {
    std::string& words = lists[list];
    words += (words.empty() ? "" : " ") + slot;
  };
  for (const pg::SlotState& slot : present) {
    // Made by the agent of the node that it is for, when that was cloned, or before our record was
    // lost: a slot that nobody may drop fills the disk once nobody uses it.
    if (wanted.contains(slot.name) && slot.name.starts_with(pg::kSlotPrefix))
      ours.insert(slot.name);
    if (!ours.contains(slot.name)) {
      if (wanted.contains(slot.name)) standing.insert(slot.name);
      add("foreign", slot.name);
      continue;
    }
    // A slot that lost its WAL keeps nobody's place: it is made anew.
    const bool keep = wanted.contains(slot.name) && !slot.lost;
    if (keep) standing.insert(slot.name);
    if (keep || slot.active) {
      add(keep ? "kept" : "active", slot.name);
      continue;
    }
    METAL_RETURN_IF_ERROR(pg::DropSlot(*session, slot.name, kQuery));
    METAL_RETURN_IF_ERROR(base::FaultPoint("roles.slot_dropped"));
    ours.erase(slot.name);
    if (!wanted.contains(slot.name)) add("dropped", slot.name);
  }
  METAL_RETURN_IF_ERROR(record.Store(ours));
  for (const std::string& name : wanted) {
    if (standing.contains(name)) continue;
    ours.insert(name);
    METAL_RETURN_IF_ERROR(record.Store(ours));
    METAL_RETURN_IF_ERROR(base::FaultPoint("roles.slot_recorded"));
    METAL_RETURN_IF_ERROR(pg::CreateSlot(*session, name, kQuery));
    add("created", name);
  }
  OperationResult result;
  result.values.insert(lists.begin(), lists.end());
  return result;
}

}  // namespace metal::node
