#include "fmt/format.h"
#include "tools/metalctl/address.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/run_operation.h"
#include "tools/metalctl/term_header.h"

namespace metal::ctl {
namespace {

std::string Fact(const v1::Operation& operation, const std::string& name) {
  const auto found = operation.result().find(name);
  return found == operation.result().end() ? "" : found->second;
}

std::string Verdict(const v1::Operation& operation) {
  if (Fact(operation, "cloned") == "true") {
    return "not rewound; the node is a copy of another one now, and a standby of the source";
  }
  const bool rewound = Fact(operation, "rewound") == "true";
  if (Fact(operation, "dry_run") != "true") {
    return rewound ? "rewound; the node is a standby of the source"
                   : "no rewind was needed; the node follows the source";
  }
  if (!rewound) return "no rewind is needed";
  return Fact(operation, "pg_rewind_tried") == "true"
             ? "a rewind is needed and possible"
             : "a rewind is needed; pg_rewind itself can only be tried on a stopped server";
}

}  // namespace

int Rewind(const Client& client, const RewindOptions& options) {
  v1::RewindRequest request;
  int port = 0;
  if (!ParseAddress(options.from, request.mutable_source_host(), &port)) {
    return client.FailUsage(
        fmt::format("'{}' is no HOST:PORT. HINT: for example 10.1.0.2:5432", options.from));
  }
  const bool clones = options.on_failure == "clone";
  if (clones == options.clone_source.empty()) {
    return client.FailUsage(
        "--on-failure clone and --clone-from belong together. HINT: --clone-from HOST:PORT, the "
        "transfer address of another node");
  }
  SetHeader(options.term, request.mutable_header());
  request.set_source_port(port);
  request.set_slot(options.slot);
  request.set_dry_run(options.dry_run);
  request.set_on_failure(clones ? v1::REWIND_FAILURE_ACTION_CLONE
                                : v1::REWIND_FAILURE_ACTION_QUARANTINE);
  request.set_clone_source(options.clone_source);
  request.set_clone_bytes_per_second_max(options.rate_limit);
  return RunOperation(client, *client.replication, &v1::ReplicationService::Stub::Rewind, request,
                      options.follow, [](const v1::Operation& operation) {
                        fmt::print("{}\n", Verdict(operation));
                        PrintFacts(operation);
                      });
}

}  // namespace metal::ctl
