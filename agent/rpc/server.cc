#include "agent/rpc/server.h"

#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/rpc/access.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace metal::rpc {
namespace {

// Calls of every pace at once, and some more for instant ones and for gRPC's own pollers.
constexpr int kThreadsMax = kActsAtOnce + kOrdersAtOnce + kWatchesAtOnce + 12;
constexpr int kMessageBytesMax = 16 << 20;
constexpr unsigned kCertificateRefreshSeconds = 1;
constexpr mode_t kSocketMode = 0660;

// The file must be readable now: gRPC itself would only fail each handshake.
absl::Status CheckReadable(const std::string& path, std::string_view what) {
  if (::access(path.c_str(), R_OK) == 0) return absl::OkStatus();
  return base::Annotate(base::ErrnoStatus(errno, "read", path), what);
}

// "host:port" with the port that was bound.
std::string WithPort(const std::string& listen, int port) {
  return listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
}

}  // namespace

bool IsLoopbackAddress(const std::string& listen) {
  const std::string host = listen.substr(0, listen.rfind(':'));
  return host == "localhost" || host == "[::1]" || host.rfind("127.", 0) == 0;
}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> GrpcServer::TcpCredentials() const {
  if (config_.tls_certificate.empty()) {
    if (!IsLoopbackAddress(config_.listen)) {
      return base::Error(
          absl::StatusCode::kInvalidArgument,
          "listen on {} without TLS: plain TCP is only served on loopback. HINT: configure [tls] "
          "certificate, key and client_ca, or listen on 127.0.0.1",
          config_.listen);
    }
    return grpc::InsecureServerCredentials();
  }
  METAL_RETURN_IF_ERROR(CheckReadable(config_.tls_certificate, "tls certificate"));
  METAL_RETURN_IF_ERROR(CheckReadable(config_.tls_key, "tls key"));
  METAL_RETURN_IF_ERROR(CheckReadable(config_.tls_client_ca, "tls client_ca"));
  auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      config_.tls_key, config_.tls_certificate, config_.tls_client_ca, kCertificateRefreshSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

absl::Status GrpcServer::Start(const std::vector<grpc::Service*>& services) {
  grpc::EnableDefaultHealthCheckService(true);
  static const bool reflection = [] {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  (void)reflection;

  grpc::ServerBuilder builder;
  grpc::ResourceQuota quota("metal-agent");
  quota.SetMaxThreads(kThreadsMax);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  int port = 0;
  if (!config_.listen.empty()) {
    METAL_ASSIGN_OR_RETURN(auto credentials, TcpCredentials());
    builder.AddListeningPort(config_.listen, credentials, &port);
  }
  if (!config_.socket.empty()) {
    METAL_RETURN_IF_ERROR(base::MakeDirectories(base::DirectoryOf(config_.socket), 0750));
    ::unlink(config_.socket.c_str());
    builder.AddListeningPort("unix:" + config_.socket, grpc::InsecureServerCredentials());
  }
  for (grpc::Service* service : services) builder.RegisterService(service);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || (!config_.listen.empty() && port == 0)) {
    server_.reset();
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "listen on '{}' and '{}': cannot bind. HINT: is another agent running?",
                       config_.listen, config_.socket);
  }
  if (!config_.socket.empty() && ::chmod(config_.socket.c_str(), kSocketMode) != 0) {
    return base::ErrnoStatus(errno, "chmod", config_.socket);
  }
  if (port != 0) address_ = WithPort(config_.listen, port);
  return absl::OkStatus();
}

void GrpcServer::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  if (auto* health = server_->GetHealthCheckService()) health->Shutdown();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
  server_.reset();
}

}  // namespace metal::rpc
