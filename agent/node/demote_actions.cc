// Node's verbs for a planned change of the primary: step down, and take that back.
//
// What if the agent dies here?
//   Before the term is stored: the checkpoint was written, nothing else.
//   After it: the server may still take writes, without an order to. The operation ends as
//     AGENT_RESTARTED; a repeated Demote goes on, UndoDemote takes it back.
//   After the shutdown was requested: the server ends by itself and comes up as a standby, for that
//     is what should run.
#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/role_answers.h"
#include "agent/node/steps/role_steps.h"
#include "agent/node/steps/source_steps.h"
#include "agent/node/steps/step_events.h"
#include "agent/pg/promotion.h"
#include "agent/pg/replication.h"
#include "agent/pg/wal_record.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kConnectPatience = absl::Seconds(5);
constexpr absl::Duration kLongest = absl::Hours(1);

absl::Status CheckTime(std::string_view name, absl::Duration time, absl::Duration least) {
  if (time >= least && time <= kLongest) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "{} is {}. HINT: from {} to 1 h; leave it unset for the default", name,
                     absl::FormatDuration(time), absl::FormatDuration(least));
}

// The end of the shutdown checkpoint, which the next primary must have.
absl::StatusOr<base::Lsn> ShutdownLsn(const std::string& data_dir, const pg::ControlFile& control) {
  return pg::ReadRecordEnd(data_dir, {control.timeline, control.checkpoint,
                                      control.wal_segment_size, control.wal_block_size});
}

// From here on nothing starts this node as a primary.
absl::Status StoreDemotion(NodeParts& parts, RoleStepContext& steps, const DemoteRequest& request,
                           pg::SqlSession& session, StepEvents& log) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.before_step_down"));
  const absl::Status stored = parts.terms.Demote(request.holder);
  if (!stored.ok()) {
    return base::Annotate(log.Failed("term stored", stored),
                          "nothing has changed, this node is the primary");
  }
  METAL_RETURN_IF_ERROR(parts.supervisor.SetRole(pg::StartRole::kStandby));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.step_down_stored"));
  const absl::Status cleared = ClearSources(steps, session);
  if (cleared.ok()) return absl::OkStatus();
  return base::Annotate(log.Failed("term stored", cleared),
                        "still read-write, and without an order to");
}

}  // namespace

absl::StatusOr<Operation> Node::Demote(const RequestContext& context,
                                       const DemoteRequest& request) {
  METAL_RETURN_IF_ERROR(
      CheckTime("checkpoint_timeout", request.checkpoint_timeout, absl::ZeroDuration()));
  METAL_RETURN_IF_ERROR(
      CheckTime("shutdown_timeout", request.shutdown_timeout, absl::Milliseconds(100)));
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(parts_.terms.CheckNotStale(request.holder));
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kDemote));
  OperationSpec spec = Spec(context, "Demote", TermSubject(request.holder));
  spec.term = request.holder.term;
  spec.parameters = {{"orchestrator_id", request.holder.orchestrator_id},
                     {"prepare", request.prepare ? "true" : "false"},
                     {"checkpoint_timeout", absl::FormatDuration(request.checkpoint_timeout)},
                     {"shutdown_timeout", absl::FormatDuration(request.shutdown_timeout)}};
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunDemote(operation, request);
  });
}

absl::StatusOr<OperationResult> Node::RunDemote(OperationContext& context,
                                                const DemoteRequest& request) {
  RoleStepContext steps = StepsOf(context);
  OperationResult result;
  const auto running = parts_.supervisor.postmaster();
  if (running == nullptr || !running->alive()) {
    METAL_RETURN_IF_ERROR(parts_.terms.Demote(request.holder));
    METAL_RETURN_IF_ERROR(parts_.supervisor.SetRole(pg::StartRole::kStandby));
    result.values = {{"was_primary", "false"}, {"postgres_down", "true"}};
    const auto control = pg::ReadControlFile(parts_.config.pg_data_dir);
    if (control.ok() && control->state == pg::ControlState::kShutDown) {
      METAL_ASSIGN_OR_RETURN(const base::Lsn lsn, ShutdownLsn(parts_.config.pg_data_dir, *control));
      result.values["shutdown_lsn"] = lsn.ToString();
      result.values["timeline"] = fmt::format("{}", control->timeline);
    }
    return result;
  }
  context.progress.BeginPhase("looking at the server");
  METAL_ASSIGN_OR_RETURN(std::unique_ptr<pg::SqlSession> session,
                         ConnectPatiently(steps, kConnectPatience));
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
  if (!state.in_recovery) return StepDown(context, request, std::move(session));
  // A standby already: what it has replayed is all that there is of its own.
  METAL_RETURN_IF_ERROR(parts_.terms.Demote(request.holder));
  METAL_RETURN_IF_ERROR(parts_.supervisor.SetRole(pg::StartRole::kStandby));
  METAL_ASSIGN_OR_RETURN(const WalPosition position, ReadPosition(steps, *session));
  result.values = {{"was_primary", "false"},
                   {"timeline", fmt::format("{}", position.timeline)},
                   {"shutdown_lsn", position.replayed.ToString()}};
  return result;
}

absl::StatusOr<OperationResult> Node::StepDown(OperationContext& context,
                                               const DemoteRequest& request,
                                               std::unique_ptr<pg::SqlSession> session) {
  RoleStepContext steps = StepsOf(context);
  StepEvents log("demotion", parts_.clock, parts_.events, request.holder);
  if (request.checkpoint_timeout > absl::ZeroDuration()) {
    context.progress.BeginPhase("writing a checkpoint");
    const absl::Status written = pg::Checkpoint(*session, request.checkpoint_timeout,
                                                [&] { return context.progress.cancelled(); });
    if (!written.ok()) {
      return base::Annotate(log.Failed("checkpoint", written),
                            "nothing has changed, this node is the primary");
    }
    log.Done("checkpoint");
  }
  OperationResult result;
  if (request.prepare) {
    result.values = {{"prepared", "true"}};
    return result;
  }
  METAL_RETURN_IF_ERROR(StoreDemotion(parts_, steps, request, *session, log));
  session.reset();
  log.Done("term stored");
  result.values["was_primary"] = "true";
  absl::Status lsn_status;
  pg::DemotionStop stop;
  stop.timeout = request.shutdown_timeout;
  stop.cancelled = [&] { return context.progress.cancelled(); };
  stop.on_shut_down = [&](const pg::ControlFile& control) {
    const auto lsn = ShutdownLsn(parts_.config.pg_data_dir, control);
    if (!lsn.ok()) {
      lsn_status = lsn.status();
      return;
    }
    result.values["shutdown_lsn"] = lsn->ToString();
    result.values["timeline"] = fmt::format("{}", control.timeline);
    context.publish(result.values);
    log.Done("shutdown", {{"shutdown_lsn", lsn->ToString()}});
  };
  pg::StartOptions start;
  start.as_standby = true;
  start.progress = &context.progress;
  start.prepare = [this] { return InstallManagedFiles(); };
  const absl::StatusOr<pg::StartResult> started = parts_.supervisor.Demote(stop, start);
  if (!started.ok()) {
    const bool shut_down = result.values.contains("shutdown_lsn");
    return base::Annotate(
        log.Failed(shut_down ? "start as a standby" : "shutdown", started.status()),
        fmt::format("term {} is stored, this node is not the primary any more",
                    request.holder.term));
  }
  log.Done("start as a standby");
  if (!lsn_status.ok()) {
    return base::Annotate(
        log.Failed("shutdown", lsn_status),
        fmt::format(
            "this node is a running standby of term {}, but where its WAL ends is not known",
            request.holder.term));
  }
  result.values["pid"] = fmt::format("{}", started->pid);
  RequestRefresh();
  return result;
}

absl::StatusOr<PromoteAnswer> Node::UndoDemote(const RequestContext& context,
                                               const UndoDemoteRequest& request) {
  METAL_RETURN_IF_ERROR(CheckTime("timeout", request.timeout, absl::Milliseconds(100)));
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  if (earlier) return PromoteAnswerOf(*earlier);
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kUndoDemote));
  OperationSpec spec = Spec(context, "UndoDemote", TermSubject(request.holder));
  spec.term = request.holder.term;
  spec.parameters = {{"orchestrator_id", request.holder.orchestrator_id}};
  METAL_ASSIGN_OR_RETURN(
      const OperationResult result,
      RunRoleChange(std::move(spec), [this, request](OperationContext& operation) {
        return RunUndoDemote(operation, request);
      }));
  return PromoteAnswerOf(result);
}

absl::StatusOr<OperationResult> Node::RunUndoDemote(OperationContext& context,
                                                    const UndoDemoteRequest& request) {
  RoleStepContext steps = StepsOf(context);
  METAL_RETURN_IF_ERROR(parts_.terms.UndoDemote(request.holder));
  METAL_RETURN_IF_ERROR(parts_.supervisor.SetRole(pg::StartRole::kPrimary));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.demotion_undone"));
  const auto running = parts_.supervisor.postmaster();
  if (running == nullptr || !running->alive()) {
    // Shut down as a primary, it goes on as one, on its own timeline.
    METAL_RETURN_IF_ERROR(RunStart(context, {}).status());
  }
  // A shutdown that was asked for cannot be taken back: the server ends, and is started again.
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectPatiently(steps, request.timeout));
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
  if (state.in_recovery) METAL_RETURN_IF_ERROR(KeepDurability(steps, *session));
  METAL_ASSIGN_OR_RETURN(const pg::PromoteResult promoted,
                         PromoteServer(context, *session, request.timeout));
  NoteDurability(*session, request.holder.term);
  if (!promoted.was_primary) FinishPromotionInBackground(false);
  return OperationResult{
      "", {{"timeline", fmt::format("{}", promoted.timeline)}, {"lsn", promoted.lsn.ToString()}}};
}

}  // namespace metal::node
