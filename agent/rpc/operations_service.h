// OperationsService: looks at operations, waits for them, cancels them.
// Threading: called by the gRPC pool; holds references only.
#pragma once

#include "agent/node/operations/operations.h"
#include "agent/rpc/handler.h"
#include "metal/agent/v1/operations_service.grpc.pb.h"

namespace metal::rpc {

class OperationsService final : public metal::agent::v1::OperationsService::Service {
 public:
  OperationsService(const Handler& handler, node::OperationManager& operations, base::Clock& clock)
      : handler_(handler), operations_(operations), clock_(clock) {}

  grpc::Status GetOperation(grpc::ServerContext* context,
                            const metal::agent::v1::GetOperationRequest* request,
                            metal::agent::v1::GetOperationResponse* response) override;
  grpc::Status ListOperations(grpc::ServerContext* context,
                              const metal::agent::v1::ListOperationsRequest* request,
                              metal::agent::v1::ListOperationsResponse* response) override;
  grpc::Status WaitOperation(grpc::ServerContext* context,
                             const metal::agent::v1::WaitOperationRequest* request,
                             metal::agent::v1::WaitOperationResponse* response) override;
  grpc::Status WatchOperation(
      grpc::ServerContext* context, const metal::agent::v1::WatchOperationRequest* request,
      grpc::ServerWriter<metal::agent::v1::WatchOperationResponse>* writer) override;
  grpc::Status CancelOperation(grpc::ServerContext* context,
                               const metal::agent::v1::CancelOperationRequest* request,
                               metal::agent::v1::CancelOperationResponse* response) override;

 private:
  const Handler& handler_;
  node::OperationManager& operations_;
  base::Clock& clock_;
};

}  // namespace metal::rpc
