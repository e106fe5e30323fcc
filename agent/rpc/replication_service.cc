#include "agent/rpc/replication_service.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "agent/base/status.h"
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
template <typename Request>
node::RequestContext ContextOf(const Request& request, const std::string& caller,
                               const grpc::ServerContext& context) {
  node::RequestContext origin = MakeRequestContext(request, request.header().request_id(), caller);
  const absl::Time answer_at = absl::Now() + TimeToAnswer(context);
  origin.caller_left = [&context, answer_at] {
    return ShouldStop(context) || absl::Now() >= answer_at;
  };
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
  return handler_.Run(
      "ReplicationService/BeginTerm", *context, [&](const std::string& caller) -> absl::Status {
        node::BeginTermRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
        METAL_ASSIGN_OR_RETURN(const auto answer,
                               node_.BeginTerm(ContextOf(*request, caller, *context), domain));
        PositionToProto(answer.position, response->mutable_position());
        response->set_was_primary(answer.was_primary);
        response->set_postgres_down(answer.postgres_down);
        return absl::OkStatus();
      });
}

grpc::Status ReplicationService::Promote(grpc::ServerContext* context,
                                         const v1::PromoteRequest* request,
                                         v1::PromoteResponse* response) {
  return handler_.Run(
      "ReplicationService/Promote", *context, [&](const std::string& caller) -> absl::Status {
        node::PromoteRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
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
  return handler_.Run(
      "ReplicationService/Fence", *context, [&](const std::string& caller) -> absl::Status {
        node::FenceRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        domain.reason = request->reason();
        METAL_ASSIGN_OR_RETURN(const auto answer,
                               node_.Fence(ContextOf(*request, caller, *context), domain));
        response->set_was_primary(answer.was_primary);
        return absl::OkStatus();
      });
}

grpc::Status ReplicationService::Unfence(grpc::ServerContext* context,
                                         const v1::UnfenceRequest* request, v1::UnfenceResponse*) {
  return handler_.Run("ReplicationService/Unfence", *context,
                      [&](const std::string& caller) -> absl::Status {
                        METAL_ASSIGN_OR_RETURN(const auto holder, HolderOf(request->header()));
                        return node_.Unfence(ContextOf(*request, caller, *context), holder);
                      });
}

grpc::Status ReplicationService::WaitForLsn(grpc::ServerContext* context,
                                            const v1::WaitForLsnRequest* request,
                                            v1::WaitForLsnResponse* response) {
  return handler_.Run("ReplicationService/WaitForLsn", *context,
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

}  // namespace metal::rpc
