// ReplicationService: turns requests into the node's role verbs.
// Threading: called by the gRPC pool; holds references only.
#pragma once

#include "agent/node/node.h"
#include "agent/rpc/handler.h"
#include "metal/agent/v1/replication_service.grpc.pb.h"

namespace metal::rpc {

class ReplicationService final : public metal::agent::v1::ReplicationService::Service {
 public:
  ReplicationService(const Handler& handler, node::Node& node) : handler_(handler), node_(node) {}

  grpc::Status BeginTerm(grpc::ServerContext* context,
                         const metal::agent::v1::BeginTermRequest* request,
                         metal::agent::v1::BeginTermResponse* response) override;
  grpc::Status Promote(grpc::ServerContext* context,
                       const metal::agent::v1::PromoteRequest* request,
                       metal::agent::v1::PromoteResponse* response) override;
  grpc::Status Fence(grpc::ServerContext* context, const metal::agent::v1::FenceRequest* request,
                     metal::agent::v1::FenceResponse* response) override;
  grpc::Status Unfence(grpc::ServerContext* context,
                       const metal::agent::v1::UnfenceRequest* request,
                       metal::agent::v1::UnfenceResponse* response) override;
  grpc::Status WaitForLsn(grpc::ServerContext* context,
                          const metal::agent::v1::WaitForLsnRequest* request,
                          metal::agent::v1::WaitForLsnResponse* response) override;

 private:
  const Handler& handler_;
  node::Node& node_;
};

// The holder that a header names. INVALID_ARGUMENT without a term or an orchestrator.
absl::StatusOr<node::TermHolder> HolderOf(const metal::agent::v1::TermHeader& header);

}  // namespace metal::rpc
