// BackupService: turns requests into the node's backup verbs.
// Threading: called by the gRPC pool; holds references only.
#pragma once

#include "agent/node/node.h"
#include "agent/observe/status_board.h"
#include "agent/rpc/handler.h"
#include "metal/agent/v1/backup_service.grpc.pb.h"

namespace metal::rpc {

class BackupService final : public metal::agent::v1::BackupService::Service {
 public:
  BackupService(const Handler& handler, node::Node& node, observe::StatusBoard& board,
                base::Clock& clock)
      : handler_(handler), node_(node), board_(board), clock_(clock) {}

  grpc::Status CreateBackup(grpc::ServerContext* context,
                            const metal::agent::v1::CreateBackupRequest* request,
                            metal::agent::v1::CreateBackupResponse* response) override;
  grpc::Status ListBackups(grpc::ServerContext* context,
                           const metal::agent::v1::ListBackupsRequest* request,
                           metal::agent::v1::ListBackupsResponse* response) override;
  grpc::Status GetBackup(grpc::ServerContext* context,
                         const metal::agent::v1::GetBackupRequest* request,
                         metal::agent::v1::GetBackupResponse* response) override;
  grpc::Status VerifyBackup(grpc::ServerContext* context,
                            const metal::agent::v1::VerifyBackupRequest* request,
                            metal::agent::v1::VerifyBackupResponse* response) override;
  grpc::Status RestoreBackup(grpc::ServerContext* context,
                             const metal::agent::v1::RestoreBackupRequest* request,
                             metal::agent::v1::RestoreBackupResponse* response) override;
  grpc::Status GetArchiveStatus(grpc::ServerContext* context,
                                const metal::agent::v1::GetArchiveStatusRequest* request,
                                metal::agent::v1::GetArchiveStatusResponse* response) override;

 private:
  const Handler& handler_;
  node::Node& node_;
  observe::StatusBoard& board_;
  base::Clock& clock_;
};

}  // namespace metal::rpc
