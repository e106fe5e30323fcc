#include <algorithm>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/terminal.h"

namespace metal::ctl {
namespace {

constexpr int kPage = 1000;

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
  const Tone tone = event.severity() >= v1::SEVERITY_ERROR     ? Tone::kBad
                    : event.severity() == v1::SEVERITY_WARNING ? Tone::kCaution
                                                               : Tone::kPlain;
  const std::string severity =
      fmt::format("{:8}", EnumWord(v1::Severity_Name(event.severity()), "SEVERITY_"));
  fmt::print("{}  {}  {:24}  {}: {}\n", FormatClock(event.time()),
             Paint(severity, tone, UseColors()), event.type(), event.subject(), event.message());
  std::fflush(stdout);
}

grpc::Status List(const Client& client, v1::ListEventsRequest request,
                  v1::ListEventsResponse* response) {
  grpc::ClientContext context;
  client.Prepare(context);
  return client.host->ListEvents(&context, request, response);
}

// Where a follower stands in the log.
class Position {
 public:
  Position(const Client& client, const EventsOptions& options)
      : client_(client), options_(options), after_id_(options.after_id) {}

  // Prints the page that the options ask for, and takes the end of the log as the position.
  grpc::Status Begin() {
    v1::ListEventsRequest newest;
    newest.set_page_size(1);
    newest.set_newest(true);
    v1::ListEventsResponse last;
    if (options_.follow) {
      if (auto status = List(client_, newest, &last); !status.ok()) return status;
    }
    if (options_.follow && options_.after_id != 0) {
      if (auto status = CatchUp(); !status.ok()) return status;
    } else {
      int printed = 0;
      if (auto status = PrintPage(options_.limit, &printed); !status.ok()) return status;
    }
    // Events that the filter leaves out move the position too.
    if (last.events_size() > 0) after_id_ = std::max(after_id_, last.events(0).id());
    return grpc::Status::OK;
  }

  // After OUT_OF_RANGE: prints from the log what the stream no longer has at hand.
  grpc::Status Resume(const Error& error) {
    uint64_t last = 0;
    if (const auto found = error.metadata.find("last_id"); found != error.metadata.end()) {
      if (!absl::SimpleAtoi(found->second, &last)) last = 0;
    }
    if (last < after_id_) {
      client_.Note(fmt::format("the event log began anew: event {} is not in it, its last is {}",
                               after_id_, last));
      after_id_ = 0;
    } else {
      client_.Note(fmt::format(
          "fell behind after event {}: the log has what follows, as far as it is kept", after_id_));
    }
    if (auto status = CatchUp(); !status.ok()) return status;
    after_id_ = std::max(after_id_, last);
    return grpc::Status::OK;
  }

  void Print(const v1::Event& event) {
    PrintEvent(client_, event);
    after_id_ = event.id();
  }
  uint64_t after_id() const { return after_id_; }

 private:
  grpc::Status PrintPage(int size, int* printed) {
    v1::ListEventsRequest request;
    request.set_after_id(after_id_);
    request.set_type_prefix(options_.type_prefix);
    request.set_min_severity(ParseSeverity(options_.min_severity));
    request.set_page_size(size);
    request.set_newest(options_.after_id == 0 && after_id_ == 0 && !caught_up_);
    v1::ListEventsResponse response;
    if (auto status = List(client_, request, &response); !status.ok()) return status;
    for (const auto& event : response.events()) Print(event);
    *printed = response.events_size();
    return grpc::Status::OK;
  }

  // All that follows the position.
  grpc::Status CatchUp() {
    caught_up_ = true;
    int printed = kPage;
    while (printed == kPage) {
      if (auto status = PrintPage(kPage, &printed); !status.ok()) return status;
    }
    return grpc::Status::OK;
  }

  const Client& client_;
  const EventsOptions& options_;
  uint64_t after_id_;
  bool caught_up_ = false;
};

}  // namespace

int ShowEvents(const Client& client, const EventsOptions& options) {
  Position position(client, options);
  if (auto status = position.Begin(); !status.ok()) return client.Fail(status);
  if (!options.follow) return kExitOk;
  return FollowStream<v1::WatchEventsResponse>(
      client,
      {.due = absl::Seconds(10), .answers = [&] { return AgentAnswers(client); }, .worked = true},
      [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
        v1::WatchEventsRequest request;
        request.set_after_id(position.after_id());
        request.set_type_prefix(options.type_prefix);
        request.set_min_severity(ParseSeverity(options.min_severity));
        return client.host->PrepareAsyncWatchEvents(context, request, queue);
      },
      [&](const v1::WatchEventsResponse& response) { position.Print(response.event()); },
      [&](const grpc::Status& status) {
        return status.error_code() == grpc::StatusCode::OUT_OF_RANGE &&
               position.Resume(ErrorOf(status)).ok();
      });
}

}  // namespace metal::ctl
