#include "agent/rpc/services.h"

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/rpc/access.h"
#include "agent/rpc/backup_service.h"
#include "agent/rpc/handler.h"
#include "agent/rpc/host_service.h"
#include "agent/rpc/operations_service.h"
#include "agent/rpc/postgres_service.h"
#include "agent/rpc/replication_service.h"
#include "agent/rpc/server.h"
#include "agent/rpc/storage_service.h"

namespace metal::rpc {

struct Services::Parts {
  explicit Parts(const ServedParts& served)
      : access(served.config.role_bindings),
        handler(access, &served.diagnostics.recorder()),
        host(handler, served),
        operations(handler, served.node.operations(), served.clock),
        postgres(handler, served.node),
        replication(handler, served.node),
        backup(handler, served.node, served.board, served.clock),
        storage(handler, served.node, served.board, served.clock),
        server(served.config) {}

  AccessControl access;
  Handler handler;
  HostService host;
  OperationsService operations;
  PostgresService postgres;
  ReplicationService replication;
  BackupService backup;
  StorageService storage;
  GrpcServer server;  // last: destroyed first
};

Services::Services(const ServedParts& served)
    : config_(served.config), board_(served.board), parts_(std::make_unique<Parts>(served)) {}

Services::~Services() = default;

std::string Services::address() const {
  return parts_->server.address().empty() ? "unix:" + config_.socket : parts_->server.address();
}

absl::Status Services::Start() {
  METAL_RETURN_IF_ERROR(
      parts_->server.Start({&parts_->host, &parts_->operations, &parts_->postgres,
                            &parts_->replication, &parts_->backup, &parts_->storage}));
  board_.Update(
      [&](observe::NodeStatus& status) { status.node.grpc_address = parts_->server.address(); });
  if (config_.port_file.empty()) return absl::OkStatus();
  return base::WriteFileDurably(config_.port_file, parts_->server.address() + "\n", 0644);
}

void Services::Shutdown(absl::Duration grace) { parts_->server.Shutdown(grace); }

}  // namespace metal::rpc
