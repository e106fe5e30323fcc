// Node's verbs for the door in front of PostgreSQL. The gate decides; here the node's own term has
// its say, which the door may not have heard of.
#include "agent/base/status.h"
#include "agent/node/node.h"

namespace metal::node {
namespace {

absl::StatusOr<gate::Gate*> GateOf(gate::Gate* gate, std::string_view verb) {
  if (gate != nullptr) return gate;
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "{}: the gate is off on this node. HINT: set enabled = true under [gate] of the "
                  "agent's configuration and restart the agent",
                  verb),
      {.reason = "GATE_OFF", .metadata = {}});
}

gate::Orderer OrdererOf(const RequestContext& context, const TermHolder& holder) {
  return {holder.term, holder.orchestrator_id, context.request_id};
}

}  // namespace

absl::StatusOr<HoldTrafficAnswer> Node::HoldTraffic(const RequestContext& context,
                                                    const HoldTrafficRequest& request) {
  METAL_ASSIGN_OR_RETURN(gate::Gate* const gate, GateOf(parts_.gate, "hold"));
  METAL_RETURN_IF_ERROR(ApplyBeginTerm(parts_.terms.Get(), request.holder).status());
  gate::HoldOrder order;
  order.who = OrdererOf(context, request.holder);
  order.hold_for = request.deadline;
  order.drain = request.drain_timeout;
  order.keep = request.keep_undrained;
  order.caller_left = [&] { return ShouldStopWaiting(context.caller_left); };
  METAL_ASSIGN_OR_RETURN(const gate::HoldAnswer answer, gate->Hold(order));
  return HoldTrafficAnswer{answer.leads_to.host, answer.leads_to.port, answer.held_until,
                           answer.transactions, answer.took};
}

absl::StatusOr<ReleaseTrafficAnswer> Node::ReleaseTraffic(const RequestContext& context,
                                                          const ReleaseTrafficRequest& request) {
  METAL_ASSIGN_OR_RETURN(gate::Gate* const gate, GateOf(parts_.gate, "release"));
  METAL_RETURN_IF_ERROR(ApplyBeginTerm(parts_.terms.Get(), request.holder).status());
  gate::ReleaseOrder order;
  order.who = OrdererOf(context, request.holder);
  order.target = {request.host, request.port};
  order.wait = request.timeout;
  order.caller_left = [&] { return ShouldStopWaiting(context.caller_left); };
  METAL_ASSIGN_OR_RETURN(const gate::ReleaseAnswer answer, gate->Release(order));
  return ReleaseTrafficAnswer{answer.was_held, answer.took};
}

}  // namespace metal::node
