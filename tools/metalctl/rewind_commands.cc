#include <charconv>

#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

// "10.0.0.1:5432", "[::1]:5432", "/run/postgresql:5432". False when it is none.
bool ParseSource(const std::string& text, v1::RewindRequest* request) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  int port = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (error != std::errc() || rest != end || port < 1 || port > 65535) return false;
  request->set_source_host(host);
  request->set_source_port(port);
  return true;
}

std::string Fact(const v1::Operation& operation, const std::string& name) {
  const auto found = operation.result().find(name);
  return found == operation.result().end() ? "" : found->second;
}

std::string Verdict(const v1::Operation& operation) {
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
  if (!ParseSource(options.from, &request)) {
    return client.Fail(
        ErrorFrom("USAGE", fmt::format("'{}' is no HOST:PORT. HINT: for example 10.1.0.2:5432",
                                       options.from)),
        kExitUsage);
  }
  v1::TermHeader* const header = request.mutable_header();
  header->set_term(options.term.term);
  header->set_orchestrator_id(options.term.orchestrator);
  header->set_request_id(NewRequestId());
  request.set_slot(options.slot);
  request.set_dry_run(options.dry_run);
  grpc::ClientContext context;
  client.Prepare(context);
  v1::RewindResponse response;
  if (auto status = client.replication->Rewind(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  v1::Operation operation = response.operation();
  const int code = FollowOperation(client, &operation, options.follow);
  if (client.json()) {
    Client::PrintJson(operation);
  } else if (code == kExitOk && !options.follow.detach) {
    FactList facts;
    for (const auto& [name, value] :
         FormatFacts({operation.result().begin(), operation.result().end()})) {
      facts.Add(name, value);
    }
    fmt::print("{}\n{}", Verdict(operation), facts.ToString());
  }
  return code;
}

}  // namespace metal::ctl
