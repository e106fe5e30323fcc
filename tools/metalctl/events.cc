#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"

namespace metal::ctl {
namespace {

v1::Severity ParseSeverity(const std::string& word) {
  if (word == "warning") return v1::SEVERITY_WARNING;
  if (word == "error") return v1::SEVERITY_ERROR;
  if (word == "critical") return v1::SEVERITY_CRITICAL;
  return v1::SEVERITY_INFO;
}

void PrintEvent(const Client& client, const v1::Event& event) {
  if (client.json()) {
    Client::PrintJson(event, false);
    return;
  }
  fmt::print("{}  {:8}  {:24}  {}: {}\n", FormatClock(event.time()),
             EnumWord(v1::Severity_Name(event.severity()), "SEVERITY_"), event.type(),
             event.subject(), event.message());
  std::fflush(stdout);
}

// Lists from `after_id`; sets it to the last id printed.
int ListFrom(const Client& client, const EventsOptions& options, uint64_t* after_id) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::ListEventsRequest request;
  request.set_after_id(*after_id);
  request.set_type_prefix(options.type_prefix);
  request.set_min_severity(ParseSeverity(options.min_severity));
  request.set_page_size(options.limit);
  request.set_newest(options.after_id == 0);
  v1::ListEventsResponse response;
  if (auto status = client.host->ListEvents(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  for (const auto& event : response.events()) {
    PrintEvent(client, event);
    *after_id = event.id();
  }
  return kExitOk;
}

}  // namespace

int ShowEvents(const Client& client, const EventsOptions& options) {
  uint64_t after_id = options.after_id;
  if (const int code = ListFrom(client, options, &after_id); code != kExitOk) return code;
  while (options.follow) {
    grpc::ClientContext context;
    v1::WatchEventsRequest request;
    request.set_after_id(after_id);
    request.set_type_prefix(options.type_prefix);
    request.set_min_severity(ParseSeverity(options.min_severity));
    auto reader = client.host->WatchEvents(&context, request);
    v1::WatchEventsResponse response;
    while (reader->Read(&response)) {
      PrintEvent(client, response.event());
      after_id = response.event().id();
    }
    const auto status = reader->Finish();
    if (status.error_code() != grpc::StatusCode::OUT_OF_RANGE) {
      return status.ok() ? kExitOk : client.Fail(status);
    }
    // Too far behind for the stream: catch up from the log, then watch again.
    EventsOptions catch_up = options;
    catch_up.after_id = after_id;
    if (const int code = ListFrom(client, catch_up, &after_id); code != kExitOk) return code;
  }
  return kExitOk;
}

}  // namespace metal::ctl
