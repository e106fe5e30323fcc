// Services: everything that the agent serves over gRPC, as one object for main.
// Threading: construct, Start and Shutdown on one thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/config.h"
#include "agent/observe/status_board.h"
#include "agent/rpc/served_parts.h"

namespace metal::rpc {

class Services {
 public:
  explicit Services(const ServedParts& served);
  ~Services();

  // Binds and serves; publishes the bound address and writes config.port_file. Errors as
  // GrpcServer::Start.
  absl::Status Start();
  // "host:port", or the unix socket when there is no TCP listener.
  std::string address() const;
  void Shutdown(absl::Duration grace);

 private:
  struct Parts;
  const base::AgentConfig& config_;
  observe::StatusBoard& board_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace metal::rpc
