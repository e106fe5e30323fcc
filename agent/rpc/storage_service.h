// StorageService: reads disks from the published status; starts storage probes.
// Threading: called by the gRPC pool; holds references only.
#pragma once

#include "agent/node/node.h"
#include "agent/observe/status_board.h"
#include "agent/rpc/handler.h"
#include "metal/agent/v1/storage_service.grpc.pb.h"

namespace metal::rpc {

class StorageService final : public metal::agent::v1::StorageService::Service {
 public:
  StorageService(const Handler& handler, node::Node& node, observe::StatusBoard& board,
                 base::Clock& clock)
      : handler_(handler), node_(node), board_(board), clock_(clock) {}

  grpc::Status ListDisks(grpc::ServerContext* context,
                         const metal::agent::v1::ListDisksRequest* request,
                         metal::agent::v1::ListDisksResponse* response) override;
  grpc::Status GetStorageHealth(grpc::ServerContext* context,
                                const metal::agent::v1::GetStorageHealthRequest* request,
                                metal::agent::v1::GetStorageHealthResponse* response) override;
  grpc::Status WatchStorageHealth(
      grpc::ServerContext* context, const metal::agent::v1::WatchStorageHealthRequest* request,
      grpc::ServerWriter<metal::agent::v1::WatchStorageHealthResponse>* writer) override;
  grpc::Status TellPeers(grpc::ServerContext* context,
                         const metal::agent::v1::TellPeersRequest* request,
                         metal::agent::v1::TellPeersResponse* response) override;
  grpc::Status GetDriveLogs(grpc::ServerContext* context,
                            const metal::agent::v1::GetDriveLogsRequest* request,
                            metal::agent::v1::GetDriveLogsResponse* response) override;
  grpc::Status RunStorageProbe(grpc::ServerContext* context,
                               const metal::agent::v1::RunStorageProbeRequest* request,
                               metal::agent::v1::RunStorageProbeResponse* response) override;
  grpc::Status AcknowledgeFault(grpc::ServerContext* context,
                                const metal::agent::v1::AcknowledgeFaultRequest* request,
                                metal::agent::v1::AcknowledgeFaultResponse* response) override;

 private:
  const Handler& handler_;
  node::Node& node_;
  observe::StatusBoard& board_;
  base::Clock& clock_;
};

}  // namespace metal::rpc
