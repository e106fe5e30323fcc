// GrpcServer: the listeners, their credentials and the registered services.
// Unix socket (mode 0660), and one TCP address: with mTLS when [tls] is configured (certificate
// files are read again within seconds of a change), without TLS only on a loopback address.
// Threading: construct, Start and Shutdown on one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/config.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "grpcpp/server.h"

namespace metal::rpc {

class GrpcServer {
 public:
  explicit GrpcServer(const base::AgentConfig& config) : config_(config) {}
  ~GrpcServer();

  // The services outlive the server. INVALID_ARGUMENT for plain TCP that is not loopback;
  // FAILED_PRECONDITION when an address is in use or a certificate cannot be read.
  absl::Status Start(const std::vector<grpc::Service*>& services);
  // Bound TCP address "host:port"; empty when there is no TCP listener.
  const std::string& address() const { return address_; }
  // Refuses new calls, gives running ones `grace`, then cancels them.
  void Shutdown(absl::Duration grace);

 private:
  absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TcpCredentials() const;

  const base::AgentConfig& config_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// "127.0.0.1:7420", "[::1]:7420", "localhost:7420" are loopback.
bool IsLoopbackAddress(const std::string& listen);

}  // namespace metal::rpc
