#include "fmt/format.h"
#include "tools/metalctl/address.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/run_operation.h"
#include "tools/metalctl/term_header.h"

namespace metal::ctl {

int CloneNode(const Client& client, const CloneOptions& options) {
  v1::CloneRequest request;
  std::string host;
  int port = 0;
  if (!ParseAddress(options.primary, &host, &port)) {
    return client.FailUsage(
        fmt::format("--primary '{}' is no address. HINT: HOST:PORT of PostgreSQL, "
                    "for example 10.0.0.1:5432",
                    options.primary));
  }
  request.set_bytes_per_second_max(options.rate_limit);
  SetHeader(options.term, options.orchestrator, request.mutable_header());
  request.set_source(options.source);
  request.set_primary_host(host);
  request.set_primary_port(port);
  request.set_replace(options.replace);
  request.mutable_tablespace_mapping()->insert(options.tablespaces.begin(),
                                               options.tablespaces.end());
  request.set_codec(options.codec == "lz4"    ? v1::CLONE_CODEC_LZ4
                    : options.codec == "zstd" ? v1::CLONE_CODEC_ZSTD
                                              : v1::CLONE_CODEC_NONE);
  return RunOperation(client, *client.replication, &v1::ReplicationService::Stub::Clone, request,
                      options.follow, [](const v1::Operation& operation) {
                        PrintFacts(operation);
                        PrintNext("metalctl status");
                      });
}

}  // namespace metal::ctl
