#include "tools/metalctl/client.h"

#include <cstdio>
#include <random>

#include "absl/time/clock.h"
#include "agent/base/file.h"
#include "fmt/format.h"
#include "google/protobuf/util/json_util.h"

namespace metal::ctl {
namespace {

std::shared_ptr<grpc::ChannelCredentials> CredentialsFor(const ClientOptions& options) {
  if (options.ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = base::ReadFile(options.ca).value_or("");
  if (!options.certificate.empty()) {
    ssl.pem_cert_chain = base::ReadFile(options.certificate).value_or("");
    ssl.pem_private_key = base::ReadFile(options.key).value_or("");
  }
  return grpc::SslCredentials(ssl);
}

}  // namespace

Client::Client(ClientOptions options) : options_(std::move(options)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  if (!options_.server_name.empty()) arguments.SetSslTargetNameOverride(options_.server_name);
  auto channel = grpc::CreateCustomChannel(options_.endpoint, CredentialsFor(options_), arguments);
  host = v1::HostService::NewStub(channel);
  operations = v1::OperationsService::NewStub(channel);
  postgres = v1::PostgresService::NewStub(channel);
  replication = v1::ReplicationService::NewStub(channel);
  backup = v1::BackupService::NewStub(channel);
  storage = v1::StorageService::NewStub(channel);
}

void Client::Prepare(grpc::ClientContext& context, absl::Duration extra) const {
  context.set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout + extra));
}

int ExitCodeOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return kExitOk;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return kExitUnreachable;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::OUT_OF_RANGE:
      return kExitUsage;
    case grpc::StatusCode::NOT_FOUND:
      return kExitNotFound;
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      return kExitRefused;
    case grpc::StatusCode::DATA_LOSS:
      return kExitCorrupt;
    default:
      return kExitFailed;
  }
}

int Client::Fail(const grpc::Status& status) const {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    fmt::print(stderr,
               "metalctl: no agent answers at {}: {}\nHINT: is metal-agent running? give "
               "--endpoint or METAL_ENDPOINT\n",
               options_.endpoint, status.error_message());
  } else {
    std::string message = status.error_message();
    if (const size_t hint = message.find(" HINT: "); hint != std::string::npos)
      message[hint] = '\n';
    fmt::print(stderr, "metalctl: {}\n",
               message.empty() ? "the call failed without a message" : message);
  }
  return ExitCodeOf(status.error_code());
}

void Client::PrintJson(const google::protobuf::Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = pretty;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) text = "{}";
  fmt::print("{}{}", text, pretty ? "" : "\n");
  std::fflush(stdout);
}

std::string NewRequestId() {
  std::random_device random;
  const auto word = [&] { return static_cast<uint32_t>(random()); };
  const uint32_t b = word();
  const uint32_t c = word();
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}", word(), b >> 16, b & 0xfff,
                     0x8000 | (c >> 16 & 0x3fff), c & 0xffff, word());
}

}  // namespace metal::ctl
