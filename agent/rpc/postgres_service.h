// PostgresService: turns requests into the node's verbs.
// Threading: called by the gRPC pool; holds references only.
#pragma once

#include "agent/node/node.h"
#include "agent/rpc/handler.h"
#include "metal/agent/v1/postgres_service.grpc.pb.h"

namespace metal::rpc {

class PostgresService final : public metal::agent::v1::PostgresService::Service {
 public:
  PostgresService(const Handler& handler, node::Node& node) : handler_(handler), node_(node) {}

  grpc::Status InitDataDirectory(grpc::ServerContext* context,
                                 const metal::agent::v1::InitDataDirectoryRequest* request,
                                 metal::agent::v1::InitDataDirectoryResponse* response) override;
  grpc::Status StartPostgres(grpc::ServerContext* context,
                             const metal::agent::v1::StartPostgresRequest* request,
                             metal::agent::v1::StartPostgresResponse* response) override;
  grpc::Status StopPostgres(grpc::ServerContext* context,
                            const metal::agent::v1::StopPostgresRequest* request,
                            metal::agent::v1::StopPostgresResponse* response) override;
  grpc::Status RestartPostgres(grpc::ServerContext* context,
                               const metal::agent::v1::RestartPostgresRequest* request,
                               metal::agent::v1::RestartPostgresResponse* response) override;
  grpc::Status ReloadConfig(grpc::ServerContext* context,
                            const metal::agent::v1::ReloadConfigRequest* request,
                            metal::agent::v1::ReloadConfigResponse* response) override;
  grpc::Status ApplyConfig(grpc::ServerContext* context,
                           const metal::agent::v1::ApplyConfigRequest* request,
                           metal::agent::v1::ApplyConfigResponse* response) override;
  grpc::Status GetConfig(grpc::ServerContext* context,
                         const metal::agent::v1::GetConfigRequest* request,
                         metal::agent::v1::GetConfigResponse* response) override;
  grpc::Status GetControlData(grpc::ServerContext* context,
                              const metal::agent::v1::GetControlDataRequest* request,
                              metal::agent::v1::GetControlDataResponse* response) override;

 private:
  const Handler& handler_;
  node::Node& node_;
};

}  // namespace metal::rpc
