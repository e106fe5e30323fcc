#include "agent/rpc/postgres_service.h"

#include <algorithm>

#include "agent/base/status.h"
#include "agent/rpc/convert_operation.h"
#include "agent/rpc/convert_status.h"

namespace metal::rpc {
namespace {

node::StopMode FromProto(v1::StopMode mode) {
  switch (mode) {
    case v1::STOP_MODE_SMART:
      return node::StopMode::kSmart;
    case v1::STOP_MODE_IMMEDIATE:
      return node::StopMode::kImmediate;
    default:
      return node::StopMode::kFast;
  }
}

// The field's value when it is set, else `fallback`. INVALID_ARGUMENT when it is not positive.
template <typename Request>
absl::StatusOr<absl::Duration> TimeoutOf(const Request& request, absl::Duration fallback) {
  if (!request.has_timeout()) return fallback;
  const absl::Duration timeout = rpc::FromProto(request.timeout());
  if (timeout <= absl::ZeroDuration()) {
    return base::Error(absl::StatusCode::kInvalidArgument, "timeout must be positive");
  }
  return timeout;
}

// For a read of the data disk: a caller without a deadline is not kept longer than this either.
absl::Duration PatienceOf(const grpc::ServerContext& context) {
  return std::min(TimeToAnswer(context), absl::Seconds(10));
}

void SettingToProto(const node::ConfigSetting& setting, v1::Setting* out) {
  out->set_name(setting.name);
  out->set_value(setting.value);
  out->set_unit(setting.unit);
  out->set_source(setting.source);
  out->set_pending_restart(setting.pending_restart);
}

}  // namespace

grpc::Status PostgresService::InitDataDirectory(grpc::ServerContext* context,
                                                const v1::InitDataDirectoryRequest* request,
                                                v1::InitDataDirectoryResponse* response) {
  return handler_.Run(
      "PostgresService/InitDataDirectory", *context,
      [&](const std::string& caller) -> absl::Status {
        if (request->wal_segment_bytes() < 0) {
          return base::Error(absl::StatusCode::kInvalidArgument,
                             "wal_segment_bytes must not be negative");
        }
        node::InitDataDirectoryRequest domain;
        domain.locale = request->locale();
        domain.encoding = request->encoding();
        domain.superuser_password = request->superuser_password();
        domain.wal_segment_bytes = static_cast<uint64_t>(request->wal_segment_bytes());
        domain.settings = {request->settings().begin(), request->settings().end()};
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.InitDataDirectory(MakeRequestContext(*request, request->request_id(), caller),
                                    domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status PostgresService::StartPostgres(grpc::ServerContext* context,
                                            const v1::StartPostgresRequest* request,
                                            v1::StartPostgresResponse* response) {
  return handler_.Run(
      "PostgresService/StartPostgres", *context, [&](const std::string& caller) -> absl::Status {
        node::StartPostgresRequest domain;
        if (request->has_no_progress_timeout()) {
          domain.no_progress_timeout = rpc::FromProto(request->no_progress_timeout());
        }
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.StartPostgres(MakeRequestContext(*request, request->request_id(), caller),
                                domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status PostgresService::StopPostgres(grpc::ServerContext* context,
                                           const v1::StopPostgresRequest* request,
                                           v1::StopPostgresResponse* response) {
  return handler_.Run(
      "PostgresService/StopPostgres", *context, [&](const std::string& caller) -> absl::Status {
        node::StopPostgresRequest domain;
        domain.mode = FromProto(request->mode());
        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
        domain.escalate = request->escalate();
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.StopPostgres(MakeRequestContext(*request, request->request_id(), caller),
                               domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status PostgresService::RestartPostgres(grpc::ServerContext* context,
                                              const v1::RestartPostgresRequest* request,
                                              v1::RestartPostgresResponse* response) {
  return handler_.Run(
      "PostgresService/RestartPostgres", *context, [&](const std::string& caller) -> absl::Status {
        node::RestartPostgresRequest domain;
        domain.mode = FromProto(request->mode());
        METAL_ASSIGN_OR_RETURN(domain.timeout, TimeoutOf(*request, domain.timeout));
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.RestartPostgres(MakeRequestContext(*request, request->request_id(), caller),
                                  domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status PostgresService::ReloadConfig(grpc::ServerContext* context,
                                           const v1::ReloadConfigRequest* request,
                                           v1::ReloadConfigResponse* response) {
  return handler_.Run(
      "PostgresService/ReloadConfig", *context, [&](const std::string& caller) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(const auto answer, node_.ReloadConfig(MakeRequestContext(
                                                      *request, request->request_id(), caller)));
        *response->mutable_load_time() = ToProto(answer.load_time);
        for (const auto& name : answer.pending_restart) response->add_pending_restart(name);
        return absl::OkStatus();
      });
}

grpc::Status PostgresService::ApplyConfig(grpc::ServerContext* context,
                                          const v1::ApplyConfigRequest* request,
                                          v1::ApplyConfigResponse* response) {
  return handler_.Run(
      "PostgresService/ApplyConfig", *context, [&](const std::string& caller) -> absl::Status {
        node::ApplyConfigRequest domain;
        domain.settings = {request->settings().begin(), request->settings().end()};
        domain.reset = {request->reset().begin(), request->reset().end()};
        domain.validate_only = request->validate_only();
        METAL_ASSIGN_OR_RETURN(
            const auto answer,
            node_.ApplyConfig(MakeRequestContext(*request, request->request_id(), caller), domain));
        for (const auto& change : answer.changes) {
          auto* out = response->add_changes();
          out->set_name(change.name);
          out->set_old_value(change.old_value);
          out->set_new_value(change.new_value);
          out->set_requires_restart(change.requires_restart);
        }
        for (const auto& name : answer.pending_restart) response->add_pending_restart(name);
        response->set_reloaded(answer.reloaded);
        return absl::OkStatus();
      });
}

grpc::Status PostgresService::GetConfig(grpc::ServerContext* context,
                                        const v1::GetConfigRequest* request,
                                        v1::GetConfigResponse* response) {
  return handler_.Run(
      "PostgresService/GetConfig", *context, [&](const std::string&) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(const auto answer,
                               node_.GetConfig(request->include_effective(), PatienceOf(*context)));
        for (const auto& setting : answer.managed) SettingToProto(setting, response->add_managed());
        for (const auto& setting : answer.effective)
          SettingToProto(setting, response->add_effective());
        return absl::OkStatus();
      });
}

grpc::Status PostgresService::GetControlData(grpc::ServerContext* context,
                                             const v1::GetControlDataRequest*,
                                             v1::GetControlDataResponse* response) {
  return handler_.Run(
      "PostgresService/GetControlData", *context, [&](const std::string&) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(const auto control, node_.GetControlData(PatienceOf(*context)));
        response->set_control_version(control.control_version);
        response->set_catalog_version(control.catalog_version);
        response->set_system_identifier(control.system_identifier);
        response->set_state(std::string(pg::ControlStateName(control.state)));
        *response->mutable_change_time() = ToProto(control.modified);
        response->set_checkpoint_lsn(control.checkpoint.value);
        response->set_redo_lsn(control.redo.value);
        response->set_timeline(control.timeline);
        response->set_previous_timeline(control.previous_timeline);
        response->set_min_recovery_lsn(control.min_recovery.value);
        response->set_min_recovery_timeline(control.min_recovery_timeline);
        response->set_data_checksum_version(control.checksum_version);
        response->set_block_bytes(control.block_size);
        response->set_wal_segment_bytes(static_cast<uint32_t>(control.wal_segment_size));
        response->set_relation_segment_blocks(control.segment_blocks);
        return absl::OkStatus();
      });
}

}  // namespace metal::rpc
