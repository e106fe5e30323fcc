// Node's verbs for roles: begin a term, promote, fence, unfence, wait for an LSN. See role_steps.h
// for the steps.
//
// What if the agent dies here?
//   BeginTerm: the term is stored first. Whatever follows is repeated by the next BeginTerm of the
//   same term; until then the
//     role table lets no promotion pass but this orchestrator's own.
//   Promote, before the order is stored: nothing happened. After it, before pg_promote: the node is
//   a standby in state
//     "promoting"; a restart keeps it a standby (DecideStartRole looks at pg_control), the repeated
//     Promote completes it. After pg_promote: the node is, or will be, the primary that the order
//     says; a repeated Promote answers at once.
//   Fence: stored first. From then on no start is a primary's; a primary that still runs is found
//   by the role watch.
#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/node.h"
#include "agent/node/role_answers.h"
#include "agent/node/steps/role_steps.h"
#include "agent/node/steps/source_steps.h"
#include "agent/node/steps/step_events.h"
#include "agent/pg/metal_schema.h"
#include "agent/pg/promotion.h"
#include "agent/pg/replication.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kConnectPatience = absl::Seconds(5);
constexpr int kMoreLooks = 3;
constexpr absl::Duration kLookAgain = absl::Milliseconds(50);
constexpr absl::Duration kLongestWait = absl::Minutes(10);
constexpr absl::Duration kCheckpoint = absl::Minutes(10);

absl::Status CheckWait(absl::Duration timeout) {
  if (timeout > absl::ZeroDuration() && timeout <= kLongestWait) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "timeout is {}. HINT: above 0, at most 10 min; leave it unset for the default",
                     absl::FormatDuration(timeout));
}

}  // namespace

absl::StatusOr<BeginTermAnswer> Node::BeginTerm(const RequestContext& context,
                                                const BeginTermRequest& request) {
  METAL_RETURN_IF_ERROR(CheckWait(request.timeout));
  METAL_RETURN_IF_ERROR(parts_.terms.BeginTerm(request.holder));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.term_stored"));
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  if (earlier) return BeginTermAnswerOf(*earlier);
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kBeginTerm));
  OperationSpec spec = Spec(context, "BeginTerm", TermSubject(request.holder));
  spec.term = request.holder.term;
  spec.parameters = {{"orchestrator_id", request.holder.orchestrator_id},
                     {"timeout", absl::FormatDuration(request.timeout)}};
  const auto result = RunRoleChange(std::move(spec), [this, request](OperationContext& operation) {
    return RunBeginTerm(operation, request);
  });
  if (!result.ok()) {
    return base::Annotate(result.status(),
                          fmt::format("term {} is stored; begin term", request.holder.term));
  }
  return BeginTermAnswerOf(*result);
}

absl::StatusOr<OperationResult> Node::RunBeginTerm(OperationContext& context,
                                                   const BeginTermRequest& request) {
  RoleStepContext steps = StepsOf(context);
  // Before the look at the server: a crash restart that was deciding its role is then over, and
  // whatever comes up later is a standby.
  METAL_RETURN_IF_ERROR(parts_.supervisor.SetRole(pg::StartRole::kStandby));
  // A server that ends under our session (a crash, a disk without room for its WAL, a start that is
  // just taken back) is looked at again, as what it is then.
  OperationResult result;
  for (int more = kMoreLooks;; --more) {
    bool connected = false;
    const absl::Status frozen = FreezeServer(steps, request, &connected, result);
    if (frozen.ok()) return result;
    if (!connected || !absl::IsUnavailable(frozen) || more == 0) return frozen;
    base::LogWarning("event=begin_term message=\"{}; looking again\"",
                     std::string(frozen.message()));
    parts_.clock.Sleep(kLookAgain);
  }
}

absl::Status Node::FreezeServer(RoleStepContext& steps, const BeginTermRequest& request,
                                bool* connected, OperationResult& result) {
  const auto running = parts_.supervisor.postmaster();
  if (running == nullptr || !running->alive()) {
    // It must not find its old source either.
    METAL_RETURN_IF_ERROR(ClearSourcesOffline(parts_.config.pg_data_dir));
    METAL_ASSIGN_OR_RETURN(const WalPosition position,
                           ReadPositionOffline(parts_.config.pg_data_dir));
    PutPosition(result, position);
    result.values["postgres_down"] = "true";
    return absl::OkStatus();
  }
  steps.progress.BeginPhase("looking at the server");
  METAL_ASSIGN_OR_RETURN(std::unique_ptr<pg::SqlSession> session,
                         ConnectPatiently(steps, kConnectPatience));
  *connected = true;
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
  bool restart = !state.in_recovery;
  if (restart) {
    METAL_RETURN_IF_ERROR(parts_.terms.SetRoleWanted(request.holder, observe::Role::kStandby));
    result.values["was_primary"] = "true";
  } else {
    METAL_ASSIGN_OR_RETURN(restart, StopReceiving(steps, *session));
  }
  if (restart) {
    METAL_RETURN_IF_ERROR(
        RestartAsStandby(steps, std::move(session), {.drain = !state.in_recovery}));
    METAL_ASSIGN_OR_RETURN(session, ConnectPatiently(steps, kConnectPatience));
  }
  METAL_RETURN_IF_ERROR(WaitUntilReplayed(steps, *session, request.timeout));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.frozen"));
  // A later term may have begun meanwhile: this one's answer would be worth nothing.
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_ASSIGN_OR_RETURN(const WalPosition position, ReadPosition(steps, *session));
  PutPosition(result, position);
  METAL_ASSIGN_OR_RETURN(const pg::TermHistory history,
                         pg::QueryTermHistory(*session, pg::kTermHistoryRows, kQuery));
  result.values["term_history"] = pg::EncodeTermHistory(history);
  METAL_ASSIGN_OR_RETURN(const pg::DurabilityRecord durability,
                         pg::QueryDurability(*session, parts_.config.cluster_id, kQuery));
  result.values["durability"] = pg::EncodeDurability(durability);
  return absl::OkStatus();
}

absl::StatusOr<PromoteAnswer> Node::Promote(const RequestContext& context,
                                            const PromoteRequest& request) {
  const LeaseCall lease{request.lease_ttl, parts_.clock.SinceBoot()};
  METAL_RETURN_IF_ERROR(CheckWait(request.timeout));
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  if (earlier) return PromoteAnswerOf(*earlier);
  if (const TermRecord record = parts_.terms.Get(); record.LeaseRanOut()) {
    return LeaseExpired(record);
  }
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kPromote));
  OperationSpec spec = Spec(context, "Promote", TermSubject(request.holder));
  spec.term = request.holder.term;
  spec.parameters = {{"orchestrator_id", request.holder.orchestrator_id},
                     {"timeout", absl::FormatDuration(request.timeout)},
                     {"lease_ttl", absl::FormatDuration(request.lease_ttl)}};
  METAL_ASSIGN_OR_RETURN(
      const OperationResult result,
      RunRoleChange(std::move(spec), [this, request, lease](OperationContext& operation) {
        return RunPromote(operation, request, lease);
      }));
  return PromoteAnswerOf(result);
}

absl::StatusOr<OperationResult> Node::RunPromote(OperationContext& context,
                                                 const PromoteRequest& request,
                                                 const LeaseCall& lease) {
  RoleStepContext steps = StepsOf(context);
  context.progress.BeginPhase("looking at the server");
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectPatiently(steps, kConnectPatience));
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
  if (!state.in_recovery && !parts_.terms.Get().MayRunAsPrimary()) {
    return CheckRequest(RoleState::kRogue, RoleRequest::kPromote);
  }
  METAL_ASSIGN_OR_RETURN(const pg::TermHistory history,
                         pg::QueryTermHistory(*session, pg::kTermHistoryRows, kQuery));
  METAL_RETURN_IF_ERROR(pg::CheckMayPromote(history, request.holder.term, parts_.config.node_id));
  if (state.in_recovery) METAL_RETURN_IF_ERROR(KeepDurability(steps, *session));
  StepEvents log("promotion", parts_.clock, parts_.events, request.holder);
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.before_order"));
  // Checks term, holder and fence once more, in one step with the write.
  METAL_RETURN_IF_ERROR(parts_.terms.SetRoleWanted(request.holder, observe::Role::kPrimary, lease));
  LeaseChanged();
  fence_proven_pid_ = 0;  // a promotion keeps the pid: that it is read-only is to be proved anew
  METAL_RETURN_IF_ERROR(parts_.supervisor.SetRole(pg::StartRole::kPrimary));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.ordered"));
  log.Done("order stored");
  context.progress.BeginPhase("promoting");
  METAL_ASSIGN_OR_RETURN(const pg::PromoteResult promoted,
                         PromoteServer(context, *session, request.timeout));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.promoted"));
  log.Done("server promoted", {{"timeline", fmt::format("{}", promoted.timeline)}});
  NoteTerm(*session, request.holder);
  const bool standbys_can_log_in = HasReplicationRole(*session);
  if (!standbys_can_log_in) EnsureReplicationRole(*session);
  log.Done("term noted");
  if (!promoted.was_primary) FinishPromotionInBackground(standbys_can_log_in);
  return OperationResult{"",
                         {{"timeline", fmt::format("{}", promoted.timeline)},
                          {"lsn", promoted.lsn.ToString()},
                          {"was_primary", Flag(promoted.was_primary)}}};
}

// Without the checkpoint, which nobody needs before the first write.
absl::StatusOr<pg::PromoteResult> Node::PromoteServer(OperationContext& context,
                                                      pg::SqlSession& session,
                                                      absl::Duration timeout) {
  if (const auto running = parts_.supervisor.postmaster()) promoted_pid_ = running->pid();
  pg::PromoteOptions options;
  options.timeout = timeout;
  options.checkpoint = false;
  options.cancelled = [&] { return context.progress.cancelled(); };
  return pg::PromoteServer(session, parts_.clock, options);
}

// The promotion has happened: what cannot be written here is no reason to call it failed, and the
// heartbeat's thread writes it later.
void Node::NoteTerm(pg::SqlSession& session, const TermHolder& holder) {
  absl::Status noted = pg::EnsureMetalSchema(session, kQuery);
  if (noted.ok()) {
    noted = pg::WriteTermHistory(
        session, {holder.term, parts_.config.node_id, holder.orchestrator_id}, kQuery);
  }
  if (noted.ok()) return NoteDurability(session, holder.term);
  base::LogWarning("event=term_history message=\"{}\"", std::string(noted.message()));
}

// What the first write need not wait for. The role for standbys may have another password by now.
// Only after the end-of-recovery checkpoint does pg_control show the new timeline; until then
// nobody may rewind to this node, and it may take minutes.
void Node::FinishPromotionInBackground(bool with_replication_role) {
  OperationSpec spec;
  spec.kind = "CheckpointAfterPromotion";
  spec.subject = "postgres";
  spec.lane = OperationLane::kReader;
  const auto started = parts_.operations.Start(
      std::move(spec),
      [this, with_replication_role](OperationContext& context) -> absl::StatusOr<OperationResult> {
        METAL_ASSIGN_OR_RETURN(const auto session, parts_.connect());
        if (with_replication_role) EnsureReplicationRole(*session);
        context.progress.BeginPhase("writing a checkpoint");
        METAL_RETURN_IF_ERROR(
            pg::Checkpoint(*session, kCheckpoint, [&] { return context.progress.cancelled(); }));
        return OperationResult{};
      });
  if (!started.ok()) {
    base::LogWarning("checkpoint after the promotion: {}", std::string(started.status().message()));
  }
}

absl::StatusOr<WaitForLsnAnswer> Node::WaitForLsn(const WaitForLsnRequest& request) {
  METAL_RETURN_IF_ERROR(CheckWait(request.timeout));
  if (!request.lsn.valid()) return absl::InvalidArgumentError("lsn is 0. HINT: give a position");
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kWaitForLsn));
  METAL_ASSIGN_OR_RETURN(const auto session, parts_.connect());
  pg::WaitForLsnRequest wait;
  wait.lsn = request.lsn;
  wait.timeline = request.timeline;
  wait.what = request.mode == LsnMode::kReceived  ? pg::WaitFor::kReceived
              : request.mode == LsnMode::kFlushed ? pg::WaitFor::kFlushed
                                                  : pg::WaitFor::kReplayed;
  wait.timeout = request.timeout;
  wait.cancelled = [this, &request] { return ShouldStopWaiting(request.caller_left); };
  wait.timeline_in_wal = [this](base::Lsn lsn) {
    return TimelineInWal(parts_.config.pg_data_dir, lsn);
  };
  METAL_ASSIGN_OR_RETURN(const base::Lsn reached, pg::WaitForLsn(*session, parts_.clock, wait));
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
  return WaitForLsnAnswer{reached, state.timeline};
}

}  // namespace metal::node
