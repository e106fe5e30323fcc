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
  // An agent that comes back is found at once; the defaults wait up to two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  channel_ = grpc::CreateCustomChannel(options_.endpoint, CredentialsFor(options_), arguments);
  host = v1::HostService::NewStub(channel_);
  operations = v1::OperationsService::NewStub(channel_);
  postgres = v1::PostgresService::NewStub(channel_);
  replication = v1::ReplicationService::NewStub(channel_);
  backup = v1::BackupService::NewStub(channel_);
  storage = v1::StorageService::NewStub(channel_);
}

void Client::Prepare(grpc::ClientContext& context, absl::Duration extra) const {
  context.set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout + extra));
}

int ExitCodeOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return kExitOk;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return kExitTimeout;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::OUT_OF_RANGE:
      return kExitUsage;
    case grpc::StatusCode::NOT_FOUND:
      return kExitNotFound;
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::UNAVAILABLE:
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

bool Client::NoAnswer(const grpc::Status& status) const {
  if (!status.error_details().empty()) return false;
  if (status.error_message().find("HINT: ") != std::string::npos) return false;
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return status.error_message().rfind("Deadline Exceeded", 0) == 0;  // gRPC's own words
  }
  // While the connection stands, it was the agent that said so.
  return status.error_code() == grpc::StatusCode::UNAVAILABLE &&
         channel_->GetState(false) != GRPC_CHANNEL_READY;
}

int Client::Fail(const grpc::Status& status) const {
  Error error = ErrorOf(status);
  if (!NoAnswer(status)) {
    if (error.code == "UNAVAILABLE" && error.hint.empty()) error.hint = "try again";
    return Fail(error, ExitCodeOf(status.error_code()));
  }
  const bool connected = status.error_message().find("connect to") == std::string::npos &&
                         status.error_message().find("connections to") == std::string::npos;
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    error.message = fmt::format("no answer from the agent at {} in time", options_.endpoint);
    error.hint =
        "is it frozen? a change that was asked for may still be made: metalctl status. --timeout "
        "waits longer";
  } else if (connected) {
    error.message = fmt::format("lost the agent at {} before it answered: {}", options_.endpoint,
                                status.error_message());
    error.hint = "a change that was asked for may have been made: metalctl status";
  } else {
    error.message =
        fmt::format("no agent answers at {}: {}", options_.endpoint, status.error_message());
    error.hint = "is metal-agent running? give --endpoint or METAL_ENDPOINT";
  }
  return Fail(error, kExitUnreachable);
}

int Client::Fail(const Error& error, int exit_code) const {
  fmt::print(stderr, "{}", json() ? ErrorJson(error) + "\n" : ErrorText(error));
  return exit_code;
}

int Client::FailUsage(const std::string& message) const {
  return Fail(ErrorFrom("USAGE", message), kExitUsage);
}

void Client::Note(std::string_view message) const {
  if (json()) {
    fmt::print(stderr, "{{\"note\":{{\"message\":{}}}}}\n", JsonString(message));
  } else {
    fmt::print(stderr, "metalctl: {}\n", message);
  }
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
