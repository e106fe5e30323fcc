// Node's fence: stored first, then enforced; see role_actions.cc for what a crash leaves.
#include "agent/base/fault_point.h"
#include "agent/base/status.h"
#include "agent/node/node.h"
#include "agent/node/role_answers.h"
#include "agent/node/steps/role_steps.h"
#include "agent/pg/replication.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kStopTimeout =
    absl::Seconds(5);  // for each way to stop: a fence is in a hurry

FenceAnswer FenceAnswerOf(const OperationResult& result) {
  const auto value = result.values.find("was_primary");
  return FenceAnswer{value != result.values.end() && value->second == "true"};
}

}  // namespace

absl::StatusOr<FenceAnswer> Node::Fence(const RequestContext& context,
                                        const FenceRequest& request) {
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  if (earlier) return FenceAnswerOf(*earlier);
  METAL_RETURN_IF_ERROR(parts_.terms.Fence(request.holder, request.reason));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.fence_stored"));
  OperationSpec spec = Spec(context, "Fence", TermSubject(request.holder));
  spec.term = request.holder.term;
  spec.parameters = {{"orchestrator_id", request.holder.orchestrator_id},
                     {"reason", request.reason}};
  auto result = RunRoleChange(std::move(spec),
                              [this](OperationContext& operation) { return RunFence(operation); });
  if (!result.ok()) {
    return base::Annotate(result.status(),
                          "the fence is stored, and the role watch goes on enforcing it; fence");
  }
  return FenceAnswerOf(*result);
}

// True: the server is in recovery, by its own word or, when it does not answer, by pg_control's.
// Nobody else's silence is evidence of a standby. Leaves the session of a server that answered in
// `session`.
bool Node::IsReadOnly(std::unique_ptr<pg::SqlSession>& session) {
  auto connected = parts_.connect();
  if (connected.ok()) {
    const auto state = pg::QueryServerState(**connected, kQuery);
    if (state.ok()) {
      session = *std::move(connected);
      return state->in_recovery;
    }
  }
  const auto control = pg::ReadControlFile(parts_.config.pg_data_dir);
  return control.ok() && control->state == pg::ControlState::kInArchiveRecovery;
}

absl::StatusOr<OperationResult> Node::RunFence(OperationContext& context) {
  RoleStepContext steps = StepsOf(context);
  // The role is stored on a disk that may hang too, and decides nothing about a server that is to
  // stay down.
  if (const TermRecord record = parts_.terms.Get(); record.FencedForDisk()) {
    observe::Fault known;  // to an earlier agent
    known.subject = record.fence.reason;
    return StopOnSickDisk(context, SickDisk().value_or(known));
  }
  METAL_RETURN_IF_ERROR(parts_.supervisor.SetRole(pg::StartRole::kStandby));
  const auto running = parts_.supervisor.postmaster();
  if (running == nullptr || !running->alive()) {
    return OperationResult{"", {{"was_primary", "false"}, {"postgres_down", "true"}}};
  }
  if (const auto sick = SickDisk()) return StopOnSickDisk(context, *sick);
  context.progress.BeginPhase("looking at the server");
  StandbyRestart options;
  options.drain = false;
  options.despite_sources = true;
  options.stop_timeout = options.escalation_timeout = kStopTimeout;
  options.escalate_to = pg::StopMode::kKill;
  std::unique_ptr<pg::SqlSession> session;
  const bool read_only = IsReadOnly(session);
  if (read_only) {
    fence_proven_pid_ = running->pid();
    return OperationResult{"", {{"was_primary", "false"}}};
  }
  METAL_RETURN_IF_ERROR(RestartAsStandby(steps, std::move(session), options));
  return OperationResult{"", {{"was_primary", "true"}}};
}

absl::Status Node::Unfence(const RequestContext& context, const TermHolder& holder) {
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  if (earlier) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(holder));
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kUnfence));
  OperationSpec spec = Spec(context, "Unfence", TermSubject(holder));
  spec.term = holder.term;
  spec.parameters = {{"orchestrator_id", holder.orchestrator_id}};
  return RunRoleChange(std::move(spec),
                       [this, holder](OperationContext&) -> absl::StatusOr<OperationResult> {
                         METAL_RETURN_IF_ERROR(parts_.terms.Unfence(holder));
                         // A promotion keeps the pid: a later fence has to prove it anew.
                         fence_proven_pid_ = 0;
                         cut_.Keep(FenceCause::kNone);
                         METAL_RETURN_IF_ERROR(base::FaultPoint("roles.unfenced"));
                         return OperationResult{};
                       })
      .status();
}

}  // namespace metal::node
