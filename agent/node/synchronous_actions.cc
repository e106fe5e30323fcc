// Node's verbs for durability: who must acknowledge commits, and which slots keep WAL for whom.
//
// What if the agent dies here? SetSynchronousStandbys goes through a policy that implies the old
// and the new one: whichever of the three is in metal.conf, no commit counts for less than the
// caller believes, and the value tells how far it came. A slot's name is recorded before the slot
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
#include "agent/node/role_steps.h"
#include "agent/node/slot_record.h"
#include "agent/pg/promotion.h"
#include "agent/pg/replication.h"
#include "agent/pg/replication_slots.h"
#include "agent/pg/settings.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kReload = absl::Seconds(10);
constexpr absl::Duration kLongestWait = absl::Minutes(10);
constexpr absl::Duration kCheckpoint = absl::Minutes(10);
constexpr const char* kSetting = "synchronous_standby_names";

// In metal.conf while the server is down.
absl::StatusOr<std::string> StoredValue(const std::string& data_dir) {
  METAL_ASSIGN_OR_RETURN(pg::ManagedSettings settings, pg::LoadManagedSettings(data_dir));
  return settings.agent[kSetting];
}

// Waits until every process of the server was told: the postmaster tells them one after the other,
// and takes the next request only when it is through.
absl::Status AwaitAllTold(RoleStepContext& steps, pg::SqlSession& session) {
  const char* const loaded_sql = "SELECT extract(epoch FROM pg_conf_load_time()) AS loaded";
  METAL_ASSIGN_OR_RETURN(const pg::SqlResult before, session.Query(loaded_sql, kQuery));
  METAL_RETURN_IF_ERROR(session.Query("SELECT pg_reload_conf()", kQuery).status());
  return PollUntil(steps, kReload, "the server did not reload", [&]() -> absl::StatusOr<bool> {
    METAL_ASSIGN_OR_RETURN(const pg::SqlResult now, session.Query(loaded_sql, kQuery));
    return now.Time(0, "loaded") > before.Time(0, "loaded");
  });
}

// Writes the policy, and waits until a running server has loaded it, its walsenders too: they are
// who releases commits.
absl::Status Install(RoleStepContext& steps, pg::SqlSession* session,
                     const pg::SynchronousPolicy& policy) {
  const std::string value = pg::RenderPolicy(policy);
  METAL_RETURN_IF_ERROR(pg::PatchAgentPart(
      steps.data_dir,
      {{kSetting, value.empty() ? std::nullopt : std::optional<std::string>(value)}}));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.synchronous_written"));
  if (session == nullptr) return steps.supervisor.Reload();
  METAL_RETURN_IF_ERROR(session->Query("SELECT pg_reload_conf()", kQuery).status());
  const absl::Status loaded = PollUntil(
      steps, kReload, "the server did not load synchronous_standby_names",
      [&]() -> absl::StatusOr<bool> {
        METAL_ASSIGN_OR_RETURN(const std::string in_force, ShowSetting(*session, kSetting));
        return in_force == value;
      });
  if (loaded.ok()) return AwaitAllTold(steps, *session);
  if (!absl::IsDeadlineExceeded(loaded)) return loaded;
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "{} is set elsewhere too, and that wins. HINT: ALTER SYSTEM RESET {}", kSetting,
                  kSetting),
      {"SETTING_OVERRIDDEN", {{"setting", kSetting}}});
}

// Waits until so many of the policy's standbys have flushed all WAL that there is now. Seen in
// their own positions: a commit that returned would prove less, for it may have been released by a
// process that did not know the policy yet.
absl::Status AwaitAcknowledged(RoleStepContext& steps, pg::SqlSession& session,
                               const pg::SynchronousPolicy& policy, absl::Duration timeout) {
  steps.progress.BeginPhase("waiting for the standbys to acknowledge");
  METAL_RETURN_IF_ERROR(
      session.Query("SELECT pg_logical_emit_message(true, 'metal', 'synchronous')", kQuery)
          .status());
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(session, kQuery));
  const std::string what =
      fmt::format("{} did not acknowledge {}", pg::RenderPolicy(policy), state.flush.ToString());
  return PollUntil(steps, timeout, what, [&]() -> absl::StatusOr<bool> {
    METAL_ASSIGN_OR_RETURN(const std::vector<pg::FollowerState> followers,
                           pg::QueryFollowers(session, kQuery));
    const auto acknowledged = std::ranges::count_if(policy.names, [&](const std::string& name) {
      return std::ranges::any_of(followers, [&](const pg::FollowerState& follower) {
        return follower.application_name == name && follower.flush >= state.flush;
      });
    });
    return acknowledged >= policy.count;
  });
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
  RoleStepContext steps{parts_.clock, parts_.supervisor, parts_.connect, parts_.config.pg_data_dir,
                        context.progress};
  std::unique_ptr<pg::SqlSession> session;
  bool read_write = false;
  const auto running = parts_.supervisor.postmaster();
  if (running != nullptr && running->alive()) {
    METAL_ASSIGN_OR_RETURN(session, ConnectPatiently(steps, kQuery));
    METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
    read_write = !state.in_recovery;
  }
  METAL_ASSIGN_OR_RETURN(const std::string found, session != nullptr
                                                      ? ShowSetting(*session, kSetting)
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
    METAL_RETURN_IF_ERROR(Install(steps, session.get(), request.policy));
    return result;
  }
  const pg::SynchronousPolicy first = pg::Between(before, request.policy).value_or(request.policy);
  METAL_RETURN_IF_ERROR(Install(steps, session.get(), first));
  if (request.policy.count > 0) {
    const absl::Status acknowledged =
        AwaitAcknowledged(steps, *session, request.policy, request.timeout);
    if (!acknowledged.ok()) {
      METAL_RETURN_IF_ERROR(
          base::Annotate(Install(steps, session.get(), before), "put the old standbys back"));
      return base::Annotate(acknowledged, "the old ones are in force again");
    }
    result.values["acknowledged"] = Flag(true);
  }
  if (before.count == 0 && request.policy.count > 0) {
    // The checkpointer turns waiting on for the whole server, between two pieces of its work.
    METAL_RETURN_IF_ERROR(pg::Checkpoint(*session, kCheckpoint));
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.synchronous_acknowledged"));
  if (first != request.policy) {
    METAL_RETURN_IF_ERROR(Install(steps, session.get(), request.policy));
  }
  Emit(parts_.events, observe::Severity::kInfo, "replication.synchronous", "postgres",
       fmt::format("synchronous standbys: \"{}\", before \"{}\"", result.values["after"],
                   result.values["before"]),
       {{"before", result.values["before"]}, {"after", result.values["after"]}});
  return result;
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
  RoleStepContext steps{parts_.clock, parts_.supervisor, parts_.connect, parts_.config.pg_data_dir,
                        context.progress};
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
