#include "agent/rpc/host_service.h"

#include "agent/base/status.h"
#include "agent/rpc/convert_status.h"
#include "agent/stream/hash.h"
#include "agent/stream/page_checksum.h"

namespace metal::rpc {
namespace {

constexpr absl::Duration kWatchSlice =
    absl::Milliseconds(250);  // how soon a lost client is noticed
constexpr absl::Duration kWatchPace =
    absl::Milliseconds(100);                                  // between two snapshots of one stream
constexpr absl::Duration kWatchHeartbeat = absl::Seconds(5);  // a snapshot at least this often
constexpr int kEventsMax = 10000;

bool Passes(const observe::Event& event, const v1::WatchEventsRequest& request) {
  return event.type.rfind(request.type_prefix(), 0) == 0 &&
         event.severity >= FromProto(request.min_severity());
}

}  // namespace

grpc::Status HostService::GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest*,
                                    v1::GetStatusResponse* response) {
  return handler_.Run("HostService/GetStatus", *context, [&](const std::string&) {
    ToProto(*board_.Get(), clock_.Monotonic(), response->mutable_status());
    return absl::OkStatus();
  });
}

grpc::Status HostService::WatchStatus(grpc::ServerContext* context,
                                      const v1::WatchStatusRequest* request,
                                      grpc::ServerWriter<v1::WatchStatusResponse>* writer) {
  return handler_.Run("HostService/WatchStatus", *context, [&](const std::string&) {
    // A revision from the future is of a run before the clock was set back: nothing is known then.
    uint64_t revision = request->since_revision();
    if (revision > board_.Get()->revision) revision = 0;
    base::MonotonicTime last_sent = clock_.Monotonic();
    while (!ShouldStop(*context)) {
      const auto status = board_.WaitAfter(revision, kWatchSlice);
      const bool changed = status->revision > revision;
      if (!changed && clock_.Monotonic() - last_sent < kWatchHeartbeat) continue;
      v1::WatchStatusResponse response;
      ToProto(*status, clock_.Monotonic(), response.mutable_status());
      if (!writer->Write(response)) break;
      revision = status->revision;
      last_sent = clock_.Monotonic();
      clock_.Sleep(kWatchPace);
    }
    return absl::OkStatus();
  });
}

grpc::Status HostService::ListEvents(grpc::ServerContext* context,
                                     const v1::ListEventsRequest* request,
                                     v1::ListEventsResponse* response) {
  return handler_.Run("HostService/ListEvents", *context, [&](const std::string&) -> absl::Status {
    if (request->page_size() < 0 || request->page_size() > kEventsMax) {
      return base::Error(absl::StatusCode::kInvalidArgument, "page_size {} is not in 1 … {}",
                         request->page_size(), kEventsMax);
    }
    observe::EventFilter filter;
    filter.after_id = request->after_id();
    filter.type_prefix = request->type_prefix();
    filter.min_severity = FromProto(request->min_severity());
    filter.limit = request->page_size() == 0 ? 1000 : static_cast<size_t>(request->page_size());
    filter.newest = request->newest();
    METAL_ASSIGN_OR_RETURN(const auto events, events_.List(filter));
    for (const auto& event : events) ToProto(event, response->add_events());
    return absl::OkStatus();
  });
}

grpc::Status HostService::WatchEvents(grpc::ServerContext* context,
                                      const v1::WatchEventsRequest* request,
                                      grpc::ServerWriter<v1::WatchEventsResponse>* writer) {
  return handler_.Run("HostService/WatchEvents", *context, [&](const std::string&) -> absl::Status {
    uint64_t after = request->after_id() == 0 ? events_.last_id() : request->after_id();
    while (!ShouldStop(*context)) {
      METAL_ASSIGN_OR_RETURN(const auto events, events_.WaitAfter(after, kWatchSlice));
      for (const auto& event : events) {
        after = event.id;
        if (!Passes(event, *request)) continue;
        v1::WatchEventsResponse response;
        ToProto(event, response.mutable_event());
        if (!writer->Write(response)) return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  });
}

grpc::Status HostService::GetCapabilities(grpc::ServerContext* context,
                                          const v1::GetCapabilitiesRequest*,
                                          v1::GetCapabilitiesResponse* response) {
  return handler_.Run("HostService/GetCapabilities", *context, [&](const std::string&) {
    const node::Capabilities capabilities = node_.GetCapabilities();
    response->set_agent_version(capabilities.agent_version);
    response->add_api_packages("metal.agent.v1");
    for (const auto& row : RpcPermissions()) {
      response->add_rpcs("metal.agent.v1." + std::string(row.rpc));
    }
    response->set_postgres_version(capabilities.postgres_version);
    for (const auto& engine : capabilities.io_engines) response->add_io_engines(engine);
    for (const auto& codec : capabilities.codecs) response->add_codecs(codec);
    response->mutable_features()->insert(capabilities.features.begin(),
                                         capabilities.features.end());
    auto& variants = *response->mutable_cpu_variants();
    variants["page_checksum"] = stream::PageChecksumImplementation();
    variants["hash"] = stream::Xxh3Implementation();
    response->set_io_engine(capabilities.io_engine);
    response->set_io_engine_reason(capabilities.io_engine_reason);
    return absl::OkStatus();
  });
}

grpc::Status HostService::CaptureDiagnostics(
    grpc::ServerContext* context, const v1::CaptureDiagnosticsRequest* request,
    grpc::ServerWriter<v1::CaptureDiagnosticsResponse>* writer) {
  return handler_.Run(
      "HostService/CaptureDiagnostics", *context, [&](const std::string& caller) -> absl::Status {
        recorder::CaptureRequest wanted;
        wanted.reason = "asked for by " + caller;
        wanted.stop = [context] { return ShouldStop(*context); };
        if (request->has_window()) {
          wanted.window = FromProto(request->window());
          if (wanted.window <= absl::ZeroDuration())
            return base::Error(absl::StatusCode::kInvalidArgument, "window must be positive");
        }
        const auto send = [&](std::string_view bytes) -> absl::Status {
          v1::CaptureDiagnosticsResponse piece;
          piece.set_data(bytes.data(), bytes.size());
          return writer->Write(piece) ? absl::OkStatus()
                                      : absl::CancelledError("the caller is gone");
        };
        METAL_ASSIGN_OR_RETURN(const recorder::CaptureSummary summary,
                               diagnostics_.Capture(wanted, send));
        v1::CaptureDiagnosticsResponse last;
        auto& told = *last.mutable_summary();
        told.set_directory(summary.directory);
        for (const std::string& name : summary.files) told.add_files(name);
        told.mutable_missing()->insert(summary.missing.begin(), summary.missing.end());
        told.set_records(static_cast<int64_t>(summary.records));
        writer->Write(last);
        return absl::OkStatus();
      });
}

}  // namespace metal::rpc
