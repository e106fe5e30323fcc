// The connection to one agent, how its errors are told, and what they mean for the exit code.
// Threading: one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "grpcpp/grpcpp.h"
#include "metal/agent/v1/backup_service.grpc.pb.h"
#include "metal/agent/v1/host_service.grpc.pb.h"
#include "metal/agent/v1/operations_service.grpc.pb.h"
#include "metal/agent/v1/postgres_service.grpc.pb.h"
#include "metal/agent/v1/replication_service.grpc.pb.h"
#include "metal/agent/v1/storage_service.grpc.pb.h"
#include "tools/metalctl/error.h"

namespace metal::ctl {

namespace v1 = ::metal::agent::v1;

// Exit codes; `metalctl --help` prints them, and README.md beside this file.
enum ExitCode {
  kExitOk = 0,
  kExitFailed = 1,        // the call or the operation failed, or the operation was cancelled
  kExitUsage = 2,         // wrong arguments
  kExitUnreachable = 3,   // no agent answered, or not in time
  kExitNotFound = 4,      // no such thing
  kExitRefused = 5,       // refused as things stand: wrong state, stale term, busy, no permission
  kExitCorrupt = 6,       // damaged data: a suspect backup, a failed verification
  kExitTimeout = 7,       // the agent answered that it was not done in the time given
  kExitInterrupted = 130  // Ctrl-C
};

struct ClientOptions {
  std::string endpoint;                           // "unix:/path" or "host:port"
  std::string ca, certificate, key, server_name;  // TLS when ca is set
  absl::Duration timeout = absl::Seconds(10);     // of each short call
  bool json = false;
};

class Client {
 public:
  explicit Client(ClientOptions options);

  const ClientOptions& options() const { return options_; }
  bool json() const { return options_.json; }
  // Sets the deadline of a short call; `extra` is added for calls that wait on the server.
  void Prepare(grpc::ClientContext& context, absl::Duration extra = absl::ZeroDuration()) const;

  // Prints a call's error on standard error (with -o json as JSON), and gives the exit code for it.
  // Tells an agent that did not answer from one that answered UNAVAILABLE or DEADLINE_EXCEEDED.
  int Fail(const grpc::Status& status) const;
  // Prints an error that is no call's, and returns `exit_code`.
  int Fail(const Error& error, int exit_code) const;
  // The same for wrong arguments: `message` says which, with its HINT.
  int FailUsage(const std::string& message) const;
  // A word on standard error beside the result; with -o json {"note":{"message":…}}.
  void Note(std::string_view message) const;
  // Prints a message as protobuf JSON, one line unless `pretty`.
  static void PrintJson(const google::protobuf::Message& message, bool pretty = true);

  std::unique_ptr<v1::HostService::Stub> host;
  std::unique_ptr<v1::OperationsService::Stub> operations;
  std::unique_ptr<v1::PostgresService::Stub> postgres;
  std::unique_ptr<v1::ReplicationService::Stub> replication;
  std::unique_ptr<v1::BackupService::Stub> backup;
  std::unique_ptr<v1::StorageService::Stub> storage;

 private:
  // True when `status` was made here because no answer came.
  bool NoAnswer(const grpc::Status& status) const;

  ClientOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Exit code for a status that the agent gave, for a call or for an operation.
int ExitCodeOf(grpc::StatusCode code);
// A random request id (UUID version 4).
std::string NewRequestId();

}  // namespace metal::ctl
