#include <unistd.h>

#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/terminal.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
int ShowStatus(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetStatusResponse response;
  if (auto status = client.host->GetStatus(&context, {}, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response.status());
  } else {
    fmt::print("{}", StatusText(response.status(), OutputOptions()));
  }
  return kExitOk;
}

int WatchStatus(const Client& client) {
  constexpr absl::Duration kDue = absl::Seconds(12);  // the agent sends a status every 5 s at least
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  return FollowStream<v1::WatchStatusResponse>(
      client, {.due = kDue, .answers = nullptr, .worked = false},
      [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
        return client.host->PrepareAsyncWatchStatus(context, {}, queue);
      },
      [&](const v1::WatchStatusResponse& response) {
        if (client.json()) return Client::PrintJson(response.status(), false);
        const std::string text = StatusText(response.status(), OutputOptions());
        fmt::print("{}", terminal ? ScreenText(text) : text + "---\n");
        std::fflush(stdout);
      },
      [](const grpc::Status&) { return false; });
}

int ShowCapabilities(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetCapabilitiesResponse response;
  if (auto status = client.host->GetCapabilities(&context, {}, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  FactList facts;
  facts.Add("agent", response.agent_version());
  facts.Add("PostgreSQL", response.postgres_version().empty() ? "programs are missing"
                                                              : response.postgres_version());
  std::string engines, codecs;
  for (const auto& engine : response.io_engines())
    engines += (engines.empty() ? "" : ", ") + engine;
  for (const auto& codec : response.codecs()) codecs += (codecs.empty() ? "" : ", ") + codec;
  facts.Add("I/O engines", engines);
  facts.Add("I/O engine in use",
            fmt::format("{} ({})", response.io_engine(), response.io_engine_reason()));
  std::string variants;
  for (const auto& [name, value] : std::map<std::string, std::string>(
           response.cpu_variants().begin(), response.cpu_variants().end())) {
    variants += (variants.empty() ? "" : ", ") + name + ": " + value;
  }
  facts.Add("CPU variants", variants);
  facts.Add("codecs", codecs);
  for (const auto& [name, value] :
       std::map<std::string, std::string>(response.features().begin(), response.features().end())) {
    facts.Add(name, value);
  }
  facts.Add("RPCs", std::to_string(response.rpcs_size()));
  fmt::print("{}", facts.ToString());
  return kExitOk;
}

}  // namespace metal::ctl
