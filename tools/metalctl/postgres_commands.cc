#include "agent/base/file.h"
#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/duration.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/run_operation.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

v1::StopMode ParseMode(const std::string& mode) {
  if (mode == "smart") return v1::STOP_MODE_SMART;
  return mode == "immediate" ? v1::STOP_MODE_IMMEDIATE : v1::STOP_MODE_FAST;
}

// Starts the operation with `call` and prints its end as JSON, or `done` with the facts of its
// result on one line.
template <typename Request, typename Response>
int Run(const Client& client,
        grpc::Status (v1::PostgresService::Stub::*call)(grpc::ClientContext*, const Request&,
                                                        Response*),
        const Request& request, const FollowOptions& follow, const char* done) {
  return RunOperation(client, *client.postgres, call, request, follow,
                      [done](const v1::Operation& ended) {
                        std::string facts;
                        for (const auto& [name, value] :
                             FormatFacts({ended.result().begin(), ended.result().end()})) {
                          facts += fmt::format("{}{} {}", facts.empty() ? ": " : ", ", name, value);
                        }
                        fmt::print("{}{}\n", done, facts);
                      });
}

}  // namespace

int InitPostgres(const Client& client, const InitOptions& options) {
  v1::InitDataDirectoryRequest request;
  request.set_request_id(NewRequestId());
  request.set_locale(options.locale);
  request.set_encoding(options.encoding);
  request.set_wal_segment_bytes(options.wal_segment_bytes);
  request.mutable_settings()->insert(options.settings.begin(), options.settings.end());
  if (!options.password_file.empty()) {
    auto password = base::ReadFile(options.password_file, 4096);
    if (!password.ok()) {
      return client.FailUsage(std::string(password.status().message()));
    }
    while (!password->empty() && (password->back() == '\n' || password->back() == '\r')) {
      password->pop_back();
    }
    request.set_superuser_password(*password);
  }
  const int code = Run(client, &v1::PostgresService::Stub::InitDataDirectory, request,
                       options.follow, "data directory is ready");
  if (code == kExitOk && !client.json() && !options.follow.detach) PrintNext("metalctl pg start");
  return code;
}

int StartPostgres(const Client& client, const StartOptions& options) {
  v1::StartPostgresRequest request;
  request.set_request_id(NewRequestId());
  *request.mutable_no_progress_timeout() = DurationProto(options.no_progress_timeout);
  return Run(client, &v1::PostgresService::Stub::StartPostgres, request, options.follow,
             "PostgreSQL accepts connections");
}

int StopPostgres(const Client& client, const StopOptions& options) {
  v1::StopPostgresRequest request;
  request.set_request_id(NewRequestId());
  request.set_mode(ParseMode(options.mode));
  *request.mutable_timeout() = DurationProto(options.timeout);
  request.set_escalate(options.escalate);
  return Run(client, &v1::PostgresService::Stub::StopPostgres, request, options.follow,
             "PostgreSQL is stopped");
}

int RestartPostgres(const Client& client, const StopOptions& options) {
  v1::RestartPostgresRequest request;
  request.set_request_id(NewRequestId());
  request.set_mode(ParseMode(options.mode));
  *request.mutable_timeout() = DurationProto(options.timeout);
  return Run(client, &v1::PostgresService::Stub::RestartPostgres, request, options.follow,
             "PostgreSQL was restarted");
}

int ReloadPostgres(const Client& client) {
  v1::ReloadConfigRequest request;
  request.set_request_id(NewRequestId());
  grpc::ClientContext context;
  client.Prepare(context);
  v1::ReloadConfigResponse response;
  if (auto status = client.postgres->ReloadConfig(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  fmt::print("configuration was loaded at {}\n", FormatClock(response.load_time()));
  for (const auto& name : response.pending_restart()) fmt::print("waits for a restart: {}\n", name);
  return kExitOk;
}

int ShowConfig(const Client& client, bool effective) {
  v1::GetConfigRequest request;
  request.set_include_effective(effective);
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetConfigResponse response;
  if (auto status = client.postgres->GetConfig(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  TextTable table({"SETTING", "SOURCE", "RESTART", "UNIT", "VALUE"});
  for (const auto& setting : effective ? response.effective() : response.managed()) {
    table.AddRow({setting.name(), setting.source(), setting.pending_restart() ? "pending" : "",
                  setting.unit(), setting.value()});
  }
  fmt::print("{}", table.empty() ? "no managed settings\n" : table.ToString());
  return kExitOk;
}

int SetConfig(const Client& client, const SetConfigOptions& options) {
  v1::ApplyConfigRequest request;
  request.set_request_id(NewRequestId());
  request.mutable_settings()->insert(options.settings.begin(), options.settings.end());
  for (const auto& name : options.reset) request.add_reset(name);
  request.set_validate_only(options.dry_run);
  grpc::ClientContext context;
  client.Prepare(context, absl::Seconds(20));
  v1::ApplyConfigResponse response;
  if (auto status = client.postgres->ApplyConfig(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  TextTable table({"SETTING", "OLD", "NEW", "RESTART"});
  for (const auto& change : response.changes()) {
    table.AddRow({change.name(), change.old_value(), change.new_value(),
                  change.requires_restart() ? "required" : "no"});
  }
  if (table.empty()) {
    fmt::print("nothing to change\n");
  } else {
    fmt::print("{}{}", options.dry_run ? "would change:\n" : "", table.ToString());
  }
  for (const auto& name : response.pending_restart()) fmt::print("waits for a restart: {}\n", name);
  if (!options.dry_run && !response.reloaded()) {
    fmt::print("PostgreSQL is down: the settings are in force from its next start\n");
  }
  return kExitOk;
}

int ShowControlData(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetControlDataResponse response;
  if (auto status = client.postgres->GetControlData(&context, {}, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  FactList facts;
  facts.Add("system identifier", std::to_string(response.system_identifier()));
  facts.Add("state", response.state());
  facts.Add("changed", FormatTime(response.change_time()));
  facts.Add("checkpoint", FormatLsn(response.checkpoint_lsn()));
  facts.Add("redo", FormatLsn(response.redo_lsn()));
  facts.Add("timeline",
            fmt::format("{} (before: {})", response.timeline(), response.previous_timeline()));
  facts.Add("minimum recovery",
            fmt::format("{} on timeline {}", FormatLsn(response.min_recovery_lsn()),
                        response.min_recovery_timeline()));
  facts.Add("data checksums", response.data_checksum_version() == 0 ? "off" : "on");
  facts.Add("page size", FormatBytes(response.block_bytes()));
  facts.Add("WAL segment", FormatBytes(response.wal_segment_bytes()));
  facts.Add("control version", std::to_string(response.control_version()));
  facts.Add("catalog version", std::to_string(response.catalog_version()));
  fmt::print("{}", facts.ToString());
  return kExitOk;
}

}  // namespace metal::ctl
