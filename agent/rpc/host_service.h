// HostService: reads the published status and the event log; asks the node for nothing but its
// capabilities. Threading: called by the gRPC pool; holds references only.
#pragma once

#include "agent/base/clock.h"
#include "agent/node/node.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "agent/rpc/handler.h"
#include "agent/rpc/served_parts.h"
#include "metal/agent/v1/host_service.grpc.pb.h"

namespace metal::rpc {

class HostService final : public metal::agent::v1::HostService::Service {
 public:
  HostService(const Handler& handler, const ServedParts& served)
      : handler_(handler),
        node_(served.node),
        board_(served.board),
        events_(served.events),
        diagnostics_(served.diagnostics),
        clock_(served.clock) {}

  grpc::Status GetStatus(grpc::ServerContext* context,
                         const metal::agent::v1::GetStatusRequest* request,
                         metal::agent::v1::GetStatusResponse* response) override;
  grpc::Status WatchStatus(
      grpc::ServerContext* context, const metal::agent::v1::WatchStatusRequest* request,
      grpc::ServerWriter<metal::agent::v1::WatchStatusResponse>* writer) override;
  grpc::Status ListEvents(grpc::ServerContext* context,
                          const metal::agent::v1::ListEventsRequest* request,
                          metal::agent::v1::ListEventsResponse* response) override;
  grpc::Status WatchEvents(
      grpc::ServerContext* context, const metal::agent::v1::WatchEventsRequest* request,
      grpc::ServerWriter<metal::agent::v1::WatchEventsResponse>* writer) override;
  grpc::Status GetCapabilities(grpc::ServerContext* context,
                               const metal::agent::v1::GetCapabilitiesRequest* request,
                               metal::agent::v1::GetCapabilitiesResponse* response) override;
  grpc::Status CaptureDiagnostics(
      grpc::ServerContext* context, const metal::agent::v1::CaptureDiagnosticsRequest* request,
      grpc::ServerWriter<metal::agent::v1::CaptureDiagnosticsResponse>* writer) override;

 private:
  const Handler& handler_;
  node::Node& node_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  recorder::Diagnostics& diagnostics_;
  base::Clock& clock_;
};

}  // namespace metal::rpc
