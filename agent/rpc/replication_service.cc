#include "agent/rpc/replication_service.h"

#include <algorithm>

#include "agent/base/clock.h"
#include "agent/base/status.h"
#include "agent/rpc/convert_operation.h"
#include "agent/rpc/convert_status.h"

namespace metal::rpc {
namespace {

constexpr absl::Duration kWaitMax = absl::Minutes(10);

void PositionToProto(const node::WalPosition& position, v1::WalPosition* out) {
  out->set_timeline(position.timeline);
  out->set_received_lsn(position.received.value);
  out->set_replayed_lsn(position.replayed.value);
  for (const auto& entry : position.history) {
    auto* row = out->add_history();
    row->set_timeline(entry.timeline);
    row->set_switch_lsn(entry.switch_lsn.value);
  }
}

template <typename Request>
absl::StatusOr<absl::Duration> TimeoutOf(const Request& request, absl::Duration fallback) {
  if (!request.has_timeout()) return fallback;
  const absl::Duration timeout = FromProto(request.timeout());
  if (timeout <= absl::ZeroDuration() || timeout > kWaitMax) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "timeout must be above 0 and at most 10 minutes");
  }
  return timeout;
}

// A time that may be 0.
template <typename Message>
absl::StatusOr<absl::Duration> TimeOf(bool present, const Message& time, std::string_view name,
                                      absl::Duration fallback) {
  if (!present) return fallback;
  const absl::Duration given = FromProto(time);
  if (given >= absl::ZeroDuration() && given <= kWaitMax) return given;
  return base::Error(absl::StatusCode::kInvalidArgument, "{} must be from 0 to 10 minutes", name);
}

// Where a node that cannot be rewound is cloned from; empty when it is not.
absl::StatusOr<std::string> CloneSourceOf(const v1::RewindRequest& request) {
  switch (request.on_failure()) {
    case v1::REWIND_FAILURE_ACTION_UNSPECIFIED:
    case v1::REWIND_FAILURE_ACTION_QUARANTINE:
      if (request.clone_source().empty()) return std::string();
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "clone_source is set, on_failure is not CLONE. HINT: set both or none");
    case v1::REWIND_FAILURE_ACTION_CLONE:
      if (!request.clone_source().empty()) return request.clone_source();
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "on_failure is CLONE without clone_source. HINT: HOST:PORT of the "
                         "transfer listener of a node to copy from");
    default:
      return base::Error(absl::StatusCode::kInvalidArgument, "unknown on_failure {}",
                         static_cast<int>(request.on_failure()));
  }
}

absl::StatusOr<absl::Duration> LeaseTtlOf(const google::protobuf::Duration& duration) {
  const absl::Duration ttl = FromProto(duration);
  if (ttl >= node::kShortestLease && ttl <= node::kLongestLease) return ttl;
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "the ttl of a lease must be {} to {}. HINT: three times the time between two "
                     "renewals or more",
                     absl::FormatDuration(node::kShortestLease),
                     absl::FormatDuration(node::kLongestLease));
}

node::LsnMode ModeOf(v1::WaitForLsnMode mode) {
  switch (mode) {
    case v1::WAIT_FOR_LSN_MODE_RECEIVED:
      return node::LsnMode::kReceived;
    case v1::WAIT_FOR_LSN_MODE_FLUSHED:
      return node::LsnMode::kFlushed;
    default:
      return node::LsnMode::kReplayed;
  }
}

// A call that waits for its action stops waiting when its client is gone or about to give up: then
// it still hears which operation goes on.
std::function<bool()> LeavesInTime(const grpc::ServerContext& context) {
  base::Clock& clock = base::RealClock();
  const base::MonotonicTime answer_at = clock.Monotonic() + TimeToAnswer(context);
  return [&context, &clock, answer_at] {
    return ShouldStop(context) || clock.Monotonic() >= answer_at;
  };
}

template <typename Request>
node::RequestContext ContextOf(const Request& request, const std::string& caller,
                               const grpc::ServerContext& context) {
  node::RequestContext origin = MakeRequestContext(request, request.header().request_id(), caller);
  origin.caller_left = LeavesInTime(context);
  return origin;
}

}  // namespace

absl::StatusOr<node::TermHolder> HolderOf(const v1::TermHeader& header) {
  if (header.term() == 0 || header.orchestrator_id().empty()) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "a role change needs header.term (1 or more) and header.orchestrator_id");
  }
  return node::TermHolder{header.term(), header.orchestrator_id()};
}

grpc::Status ReplicationService::BeginTerm(grpc::ServerContext* context,
                                           const v1::BeginTermRequest* request,
                                           v1::BeginTermResponse* response) {
  return handler_.Run("ReplicationService/BeginTerm", *context, *request,
                      [&](const std::string& caller) -> absl::Status {
                        node::BeginTermRequest domain;
                        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
                        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
                        METAL_ASSIGN_OR_RETURN(
                            const auto answer,
                            node_.BeginTerm(ContextOf(*request, caller, *context), domain));
                        PositionToProto(answer.position, response->mutable_position());
                        response->set_was_primary(answer.was_primary);
                        response->set_postgres_down(answer.postgres_down);
                        for (const auto& entry : answer.term_history)
                          ToProto(entry, response->add_term_history());
                        for (const auto& rule : answer.durability)
                          ToProto(rule, response->add_durability());
                        return absl::OkStatus();
                      });
}

grpc::Status ReplicationService::Promote(grpc::ServerContext* context,
                                         const v1::PromoteRequest* request,
                                         v1::PromoteResponse* response) {
  return handler_.Run(
      "ReplicationService/Promote", *context, *request,
      [&](const std::string& caller) -> absl::Status {
        node::PromoteRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
        if (request->has_lease_ttl()) {
          METAL_ASSIGN_OR_RETURN(domain.lease_ttl, LeaseTtlOf(request->lease_ttl()));
        }
        METAL_ASSIGN_OR_RETURN(const auto answer,
                               node_.Promote(ContextOf(*request, caller, *context), domain));
        response->set_timeline(answer.timeline);
        response->set_lsn(answer.lsn.value);
        return absl::OkStatus();
      });
}

grpc::Status ReplicationService::Fence(grpc::ServerContext* context,
                                       const v1::FenceRequest* request,
                                       v1::FenceResponse* response) {
  return handler_.Run("ReplicationService/Fence", *context, *request,
                      [&](const std::string& caller) -> absl::Status {
                        node::FenceRequest domain;
                        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
                        domain.reason = request->reason();
                        METAL_ASSIGN_OR_RETURN(
                            const auto answer,
                            node_.Fence(ContextOf(*request, caller, *context), domain));
                        response->set_was_primary(answer.was_primary);
                        return absl::OkStatus();
                      });
}

grpc::Status ReplicationService::Unfence(grpc::ServerContext* context,
                                         const v1::UnfenceRequest* request, v1::UnfenceResponse*) {
  return handler_.Run("ReplicationService/Unfence", *context, *request,
                      [&](const std::string& caller) -> absl::Status {
                        METAL_ASSIGN_OR_RETURN(const auto holder, HolderOf(request->header()));
                        return node_.Unfence(ContextOf(*request, caller, *context), holder);
                      });
}

grpc::Status ReplicationService::WaitForLsn(grpc::ServerContext* context,
                                            const v1::WaitForLsnRequest* request,
                                            v1::WaitForLsnResponse* response) {
  return handler_.Run("ReplicationService/WaitForLsn", *context, *request,
                      [&](const std::string&) -> absl::Status {
                        if (request->lsn() == 0) {
                          return base::Error(absl::StatusCode::kInvalidArgument, "lsn must be set");
                        }
                        node::WaitForLsnRequest domain;
                        domain.caller_left = [context] { return ShouldStop(*context); };
                        domain.lsn = base::Lsn{request->lsn()};
                        domain.timeline = request->timeline();
                        domain.mode = ModeOf(request->mode());
                        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
                        domain.timeout = std::min(domain.timeout, TimeToAnswer(*context));
                        METAL_ASSIGN_OR_RETURN(const auto answer, node_.WaitForLsn(domain));
                        response->set_lsn(answer.lsn.value);
                        response->set_timeline(answer.timeline);
                        return absl::OkStatus();
                      });
}

grpc::Status ReplicationService::RenewLease(grpc::ServerContext* context,
                                            const v1::RenewLeaseRequest* request,
                                            v1::RenewLeaseResponse* response) {
  return handler_.Run("ReplicationService/RenewLease", *context, *request,
                      [&](const std::string&) -> absl::Status {
                        node::RenewLeaseRequest domain;
                        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
                        METAL_ASSIGN_OR_RETURN(domain.ttl, LeaseTtlOf(request->ttl()));
                        METAL_ASSIGN_OR_RETURN(const auto answer, node_.RenewLease(domain));
                        *response->mutable_renew_within() = ToProto(answer.renew_within);
                        return absl::OkStatus();
                      });
}

grpc::Status ReplicationService::Rewind(grpc::ServerContext* context,
                                        const v1::RewindRequest* request,
                                        v1::RewindResponse* response) {
  return handler_.Run(
      "ReplicationService/Rewind", *context, *request,
      [&](const std::string& caller) -> absl::Status {
        node::RewindRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        domain.host = request->source_host();
        if (request->source_port() != 0) domain.port = request->source_port();
        domain.slot = request->slot();
        domain.dry_run = request->dry_run();
        METAL_ASSIGN_OR_RETURN(domain.clone_source, CloneSourceOf(*request));
        domain.clone_rate_limit = request->clone_bytes_per_second_max();
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.Rewind(MakeRequestContext(*request, request->header().request_id(), caller),
                         domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status ReplicationService::Demote(grpc::ServerContext* context,
                                        const v1::DemoteRequest* request,
                                        v1::DemoteResponse* response) {
  return handler_.Run(
      "ReplicationService/Demote", *context, *request,
      [&](const std::string& caller) -> absl::Status {
        node::DemoteRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        domain.prepare = request->prepare();
        METAL_ASSIGN_OR_RETURN(
            domain.checkpoint_timeout,
            TimeOf(request->has_checkpoint_timeout(), request->checkpoint_timeout(),
                   "checkpoint_timeout", domain.checkpoint_timeout));
        METAL_ASSIGN_OR_RETURN(domain.shutdown_timeout,
                               TimeOf(request->has_shutdown_timeout(), request->shutdown_timeout(),
                                      "shutdown_timeout", domain.shutdown_timeout));
        METAL_ASSIGN_OR_RETURN(const auto operation,
                               node_.Demote(ContextOf(*request, caller, *context), domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status ReplicationService::UndoDemote(grpc::ServerContext* context,
                                            const v1::UndoDemoteRequest* request,
                                            v1::UndoDemoteResponse* response) {
  return handler_.Run("ReplicationService/UndoDemote", *context, *request,
                      [&](const std::string& caller) -> absl::Status {
                        node::UndoDemoteRequest domain;
                        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
                        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
                        METAL_ASSIGN_OR_RETURN(
                            const auto answer,
                            node_.UndoDemote(ContextOf(*request, caller, *context), domain));
                        response->set_timeline(answer.timeline);
                        response->set_lsn(answer.lsn.value);
                        return absl::OkStatus();
                      });
}

grpc::Status ReplicationService::FollowPrimary(grpc::ServerContext* context,
                                               const v1::FollowPrimaryRequest* request,
                                               v1::FollowPrimaryResponse* response) {
  return handler_.Run("ReplicationService/FollowPrimary", *context, *request,
                      [&](const std::string& caller) -> absl::Status {
                        node::FollowPrimaryRequest domain;
                        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
                        domain.host = request->host();
                        domain.port = request->port();
                        domain.slot = request->slot();
                        domain.without_slot = request->without_slot();
                        METAL_ASSIGN_OR_RETURN(
                            const auto answer,
                            node_.FollowPrimary(ContextOf(*request, caller, *context), domain));
                        response->set_source(answer.source);
                        response->set_checked(answer.checked);
                        response->set_unchecked_reason(answer.unchecked_reason);
                        return absl::OkStatus();
                      });
}

grpc::Status ReplicationService::SetSynchronousStandbys(
    grpc::ServerContext* context, const v1::SetSynchronousStandbysRequest* request,
    v1::SetSynchronousStandbysResponse* response) {
  return handler_.Run("ReplicationService/SetSynchronousStandbys", *context, *request,
                      [&](const std::string& caller) -> absl::Status {
                        node::SetSynchronousStandbysRequest domain;
                        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
                        domain.policy = {!request->first(),
                                         request->count(),
                                         {request->standbys().begin(), request->standbys().end()}};
                        if ((request->count() == 0) != request->standbys().empty()) {
                          return base::Error(absl::StatusCode::kInvalidArgument,
                                             "count is 0 exactly when there are no standbys");
                        }
                        domain.expected = request->expected();
                        domain.accept_data_loss = request->accept_data_loss();
                        domain.reason = request->reason();
                        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
                        METAL_ASSIGN_OR_RETURN(const auto answer,
                                               node_.SetSynchronousStandbys(
                                                   ContextOf(*request, caller, *context), domain));
                        response->set_before(answer.before);
                        response->set_after(answer.after);
                        response->set_acknowledged(answer.acknowledged);
                        return absl::OkStatus();
                      });
}

grpc::Status ReplicationService::ReconcileReplicationSlots(
    grpc::ServerContext* context, const v1::ReconcileReplicationSlotsRequest* request,
    v1::ReconcileReplicationSlotsResponse* response) {
  return handler_.Run(
      "ReplicationService/ReconcileReplicationSlots", *context, *request,
      [&](const std::string& caller) -> absl::Status {
        node::ReconcileSlotsRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        domain.slots = {request->slots().begin(), request->slots().end()};
        METAL_ASSIGN_OR_RETURN(
            const auto answer,
            node_.ReconcileReplicationSlots(ContextOf(*request, caller, *context), domain));
        response->mutable_created()->Assign(answer.created.begin(), answer.created.end());
        response->mutable_dropped()->Assign(answer.dropped.begin(), answer.dropped.end());
        response->mutable_kept()->Assign(answer.kept.begin(), answer.kept.end());
        response->mutable_foreign()->Assign(answer.foreign.begin(), answer.foreign.end());
        response->mutable_active()->Assign(answer.active.begin(), answer.active.end());
        return absl::OkStatus();
      });
}

template <typename Request>
grpc::Status ReplicationService::ControlReplay(const char* rpc, grpc::ServerContext* context,
                                               const Request* request, node::ReplayAction action) {
  return handler_.Run(rpc, *context, *request, [&](const std::string& caller) {
    node::RequestContext origin = MakeRequestContext(*request, request->request_id(), caller);
    origin.caller_left = LeavesInTime(*context);
    return node_.ControlReplay(origin, action);
  });
}

grpc::Status ReplicationService::PauseReplay(grpc::ServerContext* context,
                                             const v1::PauseReplayRequest* request,
                                             v1::PauseReplayResponse*) {
  return ControlReplay("ReplicationService/PauseReplay", context, request,
                       node::ReplayAction::kPauseReplay);
}

grpc::Status ReplicationService::ResumeReplay(grpc::ServerContext* context,
                                              const v1::ResumeReplayRequest* request,
                                              v1::ResumeReplayResponse*) {
  return ControlReplay("ReplicationService/ResumeReplay", context, request,
                       node::ReplayAction::kResumeReplay);
}

grpc::Status ReplicationService::StopWalReceiver(grpc::ServerContext* context,
                                                 const v1::StopWalReceiverRequest* request,
                                                 v1::StopWalReceiverResponse*) {
  return ControlReplay("ReplicationService/StopWalReceiver", context, request,
                       node::ReplayAction::kStopReceiver);
}

grpc::Status ReplicationService::StartWalReceiver(grpc::ServerContext* context,
                                                  const v1::StartWalReceiverRequest* request,
                                                  v1::StartWalReceiverResponse*) {
  return ControlReplay("ReplicationService/StartWalReceiver", context, request,
                       node::ReplayAction::kStartReceiver);
}

grpc::Status ReplicationService::HoldTraffic(grpc::ServerContext* context,
                                             const v1::HoldTrafficRequest* request,
                                             v1::HoldTrafficResponse* response) {
  return handler_.Run(
      "ReplicationService/HoldTraffic", *context, *request,
      [&](const std::string& caller) -> absl::Status {
        node::HoldTrafficRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        if (request->has_deadline()) {
          domain.deadline = FromProto(request->deadline());
          if (domain.deadline <= absl::ZeroDuration())
            return base::Error(absl::StatusCode::kInvalidArgument, "deadline must be above 0");
        }
        if (request->has_drain_timeout())
          domain.drain_timeout = FromProto(request->drain_timeout());
        domain.keep_undrained = request->keep_undrained();
        METAL_ASSIGN_OR_RETURN(const auto answer,
                               node_.HoldTraffic(ContextOf(*request, caller, *context), domain));
        response->set_host(answer.host);
        response->set_port(answer.port);
        *response->mutable_held_until_time() = ToProto(answer.held_until);
        response->set_transactions(answer.transactions);
        *response->mutable_took() = ToProto(answer.took);
        return absl::OkStatus();
      });
}

grpc::Status ReplicationService::ReleaseTraffic(grpc::ServerContext* context,
                                                const v1::ReleaseTrafficRequest* request,
                                                v1::ReleaseTrafficResponse* response) {
  return handler_.Run("ReplicationService/ReleaseTraffic", *context, *request,
                      [&](const std::string& caller) -> absl::Status {
                        node::ReleaseTrafficRequest domain;
                        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
                        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
                        domain.host = request->host();
                        domain.port = request->port();
                        METAL_ASSIGN_OR_RETURN(
                            const auto answer,
                            node_.ReleaseTraffic(ContextOf(*request, caller, *context), domain));
                        response->set_was_held(answer.was_held);
                        *response->mutable_took() = ToProto(answer.took);
                        return absl::OkStatus();
                      });
}

}  // namespace metal::rpc
