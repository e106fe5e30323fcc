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
  grpc::Status Rewind(grpc::ServerContext* context, const metal::agent::v1::RewindRequest* request,
                      metal::agent::v1::RewindResponse* response) override;
  grpc::Status Demote(grpc::ServerContext* context, const metal::agent::v1::DemoteRequest* request,
                      metal::agent::v1::DemoteResponse* response) override;
  grpc::Status UndoDemote(grpc::ServerContext* context,
                          const metal::agent::v1::UndoDemoteRequest* request,
                          metal::agent::v1::UndoDemoteResponse* response) override;
  grpc::Status FollowPrimary(grpc::ServerContext* context,
                             const metal::agent::v1::FollowPrimaryRequest* request,
                             metal::agent::v1::FollowPrimaryResponse* response) override;
  grpc::Status SetSynchronousStandbys(
      grpc::ServerContext* context, const metal::agent::v1::SetSynchronousStandbysRequest* request,
      metal::agent::v1::SetSynchronousStandbysResponse* response) override;
  grpc::Status ReconcileReplicationSlots(
      grpc::ServerContext* context,
      const metal::agent::v1::ReconcileReplicationSlotsRequest* request,
      metal::agent::v1::ReconcileReplicationSlotsResponse* response) override;
  grpc::Status PauseReplay(grpc::ServerContext* context,
                           const metal::agent::v1::PauseReplayRequest* request,
                           metal::agent::v1::PauseReplayResponse* response) override;
  grpc::Status ResumeReplay(grpc::ServerContext* context,
                            const metal::agent::v1::ResumeReplayRequest* request,
                            metal::agent::v1::ResumeReplayResponse* response) override;
  grpc::Status StopWalReceiver(grpc::ServerContext* context,
                               const metal::agent::v1::StopWalReceiverRequest* request,
                               metal::agent::v1::StopWalReceiverResponse* response) override;
  grpc::Status StartWalReceiver(grpc::ServerContext* context,
                                const metal::agent::v1::StartWalReceiverRequest* request,
                                metal::agent::v1::StartWalReceiverResponse* response) override;
  grpc::Status HoldTraffic(grpc::ServerContext* context,
                           const metal::agent::v1::HoldTrafficRequest* request,
                           metal::agent::v1::HoldTrafficResponse* response) override;
  grpc::Status ReleaseTraffic(grpc::ServerContext* context,
                              const metal::agent::v1::ReleaseTrafficRequest* request,
                              metal::agent::v1::ReleaseTrafficResponse* response) override;
  grpc::Status Clone(grpc::ServerContext* context, const metal::agent::v1::CloneRequest* request,
                     metal::agent::v1::CloneResponse* response) override;
  grpc::Status RenewLease(grpc::ServerContext* context,
                          const metal::agent::v1::RenewLeaseRequest* request,
                          metal::agent::v1::RenewLeaseResponse* response) override;

 private:
  template <typename Request>
  grpc::Status ControlReplay(const char* rpc, grpc::ServerContext* context, const Request* request,
                             node::ReplayAction action);

  const Handler& handler_;
  node::Node& node_;
};

// The holder that a header names. INVALID_ARGUMENT without a term or an orchestrator.
absl::StatusOr<node::TermHolder> HolderOf(const metal::agent::v1::TermHeader& header);

}  // namespace metal::rpc
