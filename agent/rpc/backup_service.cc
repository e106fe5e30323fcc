#include "agent/rpc/backup_service.h"

#include "agent/base/status.h"
#include "agent/rpc/backup_page.h"
#include "agent/rpc/convert_operation.h"
#include "agent/rpc/convert_status.h"
#include "fmt/format.h"

namespace metal::rpc {
namespace {

absl::StatusOr<std::string> CodecOf(v1::BackupCodec codec) {
  switch (codec) {
    case v1::BACKUP_CODEC_UNSPECIFIED:
      return std::string();
    case v1::BACKUP_CODEC_NONE:
      return std::string("none");
    case v1::BACKUP_CODEC_ZSTD:
      return std::string("zstd");
    case v1::BACKUP_CODEC_LZ4:
      return std::string("lz4");
    default:
      return base::Error(absl::StatusCode::kInvalidArgument, "unknown codec {}",
                         static_cast<int>(codec));
  }
}

node::RecoveryTarget TargetOf(v1::RecoveryTarget target) {
  switch (target) {
    case v1::RECOVERY_TARGET_IMMEDIATE:
      return node::RecoveryTarget::kImmediate;
    case v1::RECOVERY_TARGET_STANDBY:
      return node::RecoveryTarget::kStandby;
    default:
      return node::RecoveryTarget::kLatest;
  }
}

void BackupToProto(const backup::BackupInfo& info, v1::Backup* out) {
  const auto& header = info.header;
  auto* summary = out->mutable_summary();
  summary->set_name("backups/" + info.label);
  summary->set_state(BackupStateToProto(backup::BackupStateName(info.state)));
  out->set_damage(info.damage);
  if (header.start_time != absl::InfinitePast()) {
    *summary->mutable_start_time() = ToProto(header.start_time);
    *summary->mutable_stop_time() = ToProto(header.stop_time);
  }
  summary->set_size_bytes(static_cast<int64_t>(header.bytes));
  summary->set_stored_bytes(static_cast<int64_t>(header.stored_bytes));
  summary->set_bytes_per_second(info.bytes_per_second());
  summary->set_codec(header.codec);
  summary->set_io_engine(header.io_engine);
  summary->set_start_lsn(header.start_lsn.value);
  summary->set_stop_lsn(header.stop_lsn.value);
  summary->set_timeline(header.timeline);
  out->set_file_count(static_cast<int64_t>(header.files));
  out->set_frame_count(static_cast<int64_t>(header.frames));
  out->set_corrupt_page_count(static_cast<int64_t>(header.corrupt_page_count));
  for (const auto& page : header.corrupt_pages) {
    out->add_corrupt_pages(fmt::format("{} block {}: {}", page.path, page.block, page.reason));
  }
  out->set_system_identifier(header.system_identifier);
  out->set_postgres_version_num(header.postgres_version);
  out->set_from_standby(header.from_standby);
  for (const auto& [oid, path] : header.tablespaces) {
    (*out->mutable_tablespaces())[std::to_string(oid)] = path;
  }
  out->set_level(header.level);
  out->mutable_annotations()->insert(header.annotations.begin(), header.annotations.end());
}

void TimelineToProto(const backup::WalTimeline& timeline, v1::ArchivedTimeline* out) {
  out->set_timeline(timeline.timeline);
  out->set_first_segment(timeline.first_segment);
  out->set_last_segment(timeline.last_segment);
  out->set_segment_count(static_cast<int64_t>(timeline.segment_count));
  out->set_stored_bytes(static_cast<int64_t>(timeline.stored_bytes));
  for (const auto& segment : timeline.missing) out->add_missing_segments(segment);
}

}  // namespace

grpc::Status BackupService::CreateBackup(grpc::ServerContext* context,
                                         const v1::CreateBackupRequest* request,
                                         v1::CreateBackupResponse* response) {
  return handler_.Run(
      "BackupService/CreateBackup", *context, [&](const std::string& caller) -> absl::Status {
        node::CreateBackupRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.codec, CodecOf(request->codec()));
        if (request->has_level()) domain.level = request->level();
        domain.spread_checkpoint = request->spread_checkpoint();
        domain.rate_limit = request->bytes_per_second_max();
        domain.ignore_free_space = request->ignore_free_space();
        domain.annotations = {request->annotations().begin(), request->annotations().end()};
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.CreateBackup(MakeRequestContext(*request, request->request_id(), caller),
                               domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status BackupService::ListBackups(grpc::ServerContext* context,
                                        const v1::ListBackupsRequest* request,
                                        v1::ListBackupsResponse* response) {
  return handler_.Run(
      "BackupService/ListBackups", *context, [&](const std::string&) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(const auto backups, node_.ListBackups());
        METAL_ASSIGN_OR_RETURN(const BackupPage page,
                               PageOfBackups(backups, request->page_size(), request->page_token()));
        for (const backup::BackupInfo& each : page.backups) {
          BackupToProto(each, response->add_backups());
        }
        response->set_next_page_token(page.next_token);
        return absl::OkStatus();
      });
}

grpc::Status BackupService::GetBackup(grpc::ServerContext* context,
                                      const v1::GetBackupRequest* request,
                                      v1::GetBackupResponse* response) {
  return handler_.Run("BackupService/GetBackup", *context, [&](const std::string&) -> absl::Status {
    METAL_ASSIGN_OR_RETURN(const auto info, node_.GetBackup(request->name()));
    BackupToProto(info, response->mutable_backup());
    return absl::OkStatus();
  });
}

grpc::Status BackupService::VerifyBackup(grpc::ServerContext* context,
                                         const v1::VerifyBackupRequest* request,
                                         v1::VerifyBackupResponse* response) {
  return handler_.Run(
      "BackupService/VerifyBackup", *context, [&](const std::string& caller) -> absl::Status {
        node::VerifyBackupRequest domain;
        domain.name = request->name();
        domain.rehearse = request->rehearse();
        domain.scratch_directory = request->scratch_directory();
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.VerifyBackup(MakeRequestContext(*request, request->request_id(), caller),
                               domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status BackupService::RestoreBackup(grpc::ServerContext* context,
                                          const v1::RestoreBackupRequest* request,
                                          v1::RestoreBackupResponse* response) {
  return handler_.Run(
      "BackupService/RestoreBackup", *context, *request,
      [&](const std::string& caller) -> absl::Status {
        if (request->port() < 0 || request->port() > 65535) {
          return base::Error(absl::StatusCode::kInvalidArgument, "port {} is not in 1 … 65535",
                             request->port());
        }
        node::RestoreBackupRequest domain;
        domain.holder = {request->header().term(), request->header().orchestrator_id()};
        domain.name = request->name();
        domain.target_directory = request->target_directory();
        domain.tablespace_mapping = {request->tablespace_mapping().begin(),
                                     request->tablespace_mapping().end()};
        domain.recovery_target = TargetOf(request->recovery_target());
        domain.port = request->port();
        domain.validate_only = request->validate_only();
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.RestoreBackup(
                MakeRequestContext(*request, request->header().request_id(), caller), domain));
        if (operation) ToProto(*operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status BackupService::GetArchiveStatus(grpc::ServerContext* context,
                                             const v1::GetArchiveStatusRequest*,
                                             v1::GetArchiveStatusResponse* response) {
  return handler_.Run(
      "BackupService/GetArchiveStatus", *context, [&](const std::string&) -> absl::Status {
        ToProto(board_.Get()->archive, clock_.Monotonic(), response->mutable_status());
        METAL_ASSIGN_OR_RETURN(const auto timelines, node_.ListArchivedTimelines());
        for (const auto& timeline : timelines) TimelineToProto(timeline, response->add_timelines());
        return absl::OkStatus();
      });
}

}  // namespace metal::rpc
