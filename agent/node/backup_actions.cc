// Node's verbs for backups.
#include <algorithm>

#include "agent/backup/backup.h"
#include "agent/backup/postgres_source.h"
#include "agent/backup/verify.h"
#include "agent/base/status.h"
#include "agent/base/throttle.h"
#include "agent/disk/faults/evidence.h"
#include "agent/node/node.h"

namespace metal::node {

namespace {

std::string Name(const std::string& label) { return "backups/" + label; }

std::string Seconds(absl::Duration duration) {
  return fmt::format("{:.3f}", absl::ToDoubleSeconds(duration));
}

// Each was read again before it was called so.
disk::Evidence CorruptPagesFound(uint64_t count, const std::string& backup) {
  disk::Evidence evidence;
  evidence.fault_class = disk::FaultClass::kCorruption;
  evidence.witness = disk::Witness::kChecksums;
  evidence.role = "data";
  evidence.delta = static_cast<int64_t>(count);
  evidence.text = fmt::format("{} found {} pages with a wrong checksum", backup, count);
  return evidence;
}

}  // namespace

absl::Status Node::CheckBackupName(const std::string& name) {
  std::string_view label = name;
  if (label.starts_with("backups/")) label.remove_prefix(8);
  if (store::IsValidLabel(label)) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "\"{}\" is no name of a backup. HINT: backups/<id> or backups/latest", name);
}

absl::StatusOr<backup::Catalog> Node::OpenCatalog() {
  if (parts_.config.repository_path.empty()) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "no backup repository is configured. HINT: set repository.path in the agent's "
                    "configuration and restart it"),
        {.reason = "REPOSITORY", .metadata = {{"repository", ""}}});
  }
  METAL_ASSIGN_OR_RETURN(
      store::Repository repository,
      store::Repository::OpenKnown(parts_.config.repository_path, parts_.config.state_dir));
  return backup::Catalog(std::move(repository));
}

backup::OperationContext Node::BackupContext(observe::Progress& progress) {
  return backup::OperationContext{
      .config = parts_.config,
      .clock = parts_.clock,
      .progress = progress,
      .events = &parts_.events,
      .wal_archive = parts_.wal_archive,
      .agent_ends = [this] { return EndIsDue(); },
      .memory = &backup_memory_,
      .throttle = parts_.copy_pace != nullptr ? &parts_.copy_pace->throttle() : nullptr};
}

absl::StatusOr<Operation> Node::CreateBackup(const RequestContext& context,
                                             const CreateBackupRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(OpenCatalog().status());
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kCreateBackup));
  OperationSpec spec = Spec(context, "CreateBackup", "postgres", OperationLane::kBackup);
  if (!request.codec.empty()) {
    METAL_ASSIGN_OR_RETURN(const stream::CodecKind kind, stream::ParseCodec(request.codec));
    if (request.level) METAL_RETURN_IF_ERROR(stream::MakeEncoder(kind, *request.level).status());
    spec.parameters["codec"] = request.codec;
  }
  if (request.level) spec.parameters["level"] = fmt::format("{}", *request.level);
  if (request.spread_checkpoint) spec.parameters["spread_checkpoint"] = "true";
  if (request.ignore_free_space) spec.parameters["ignore_free_space"] = "true";
  METAL_RETURN_IF_ERROR(base::Throttle::CheckRate(request.rate_limit));
  if (request.rate_limit != 0)
    spec.parameters["rate_limit"] = fmt::format("{}", request.rate_limit);
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunBackup(operation, request);
  });
}

absl::StatusOr<OperationResult> Node::RunBackup(OperationContext& context,
                                                const CreateBackupRequest& request) {
  backup::BackupRequest backup;
  if (!request.codec.empty()) {
    METAL_ASSIGN_OR_RETURN(backup.codec, stream::ParseCodec(request.codec));
  }
  backup.level = request.level;
  backup.spread_checkpoint = request.spread_checkpoint;
  backup.annotations = request.annotations;
  backup.rate_limit = request.rate_limit;
  backup.ignore_free_space = request.ignore_free_space;
  pg::ConnectOptions connect;
  connect.socket_dir = parts_.config.pg_socket_dir;
  connect.port = parts_.config.pg_port;
  connect.user = parts_.config.pg_superuser;
  METAL_ASSIGN_OR_RETURN(const backup::BackupInfo info,
                         backup::CreateBackup(backup, backup::MakePostgresSource(connect),
                                              BackupContext(context.progress)));
  RequestRefresh();
  OperationResult result;
  result.name = Name(info.label);
  const backup::BackupHeader& header = info.header;
  if (header.corrupt_page_count > 0) {
    parts_.disks.Take(CorruptPagesFound(header.corrupt_page_count, result.name));
  }
  result.values = {{"bytes", fmt::format("{}", header.bytes)},
                   {"stored_bytes", fmt::format("{}", header.stored_bytes)},
                   {"files", fmt::format("{}", header.files)},
                   {"seconds", Seconds(header.stop_time - header.start_time)},
                   {"copy_seconds", Seconds(header.copy_time)},
                   {"bytes_per_second", fmt::format("{:.0f}", info.bytes_per_second())},
                   {"start_lsn", header.start_lsn.ToString()},
                   {"stop_lsn", header.stop_lsn.ToString()},
                   {"timeline", fmt::format("{}", header.timeline)},
                   {"state", std::string(backup::BackupStateName(info.state))},
                   {"corrupt_pages", fmt::format("{}", header.corrupt_page_count)},
                   {"pages_in_window", fmt::format("{}", header.pages_in_window)},
                   {"io_engine", header.io_engine},
                   {"codec", header.codec}};
  return result;
}

absl::StatusOr<Operation> Node::VerifyBackup(const RequestContext& context,
                                             const VerifyBackupRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(CheckBackupName(request.name));
  METAL_ASSIGN_OR_RETURN(const backup::BackupInfo info, GetBackup(request.name));
  OperationSpec spec = Spec(context, "VerifyBackup", Name(info.label), OperationLane::kReader);
  spec.parameters = {{"rehearse", request.rehearse ? "true" : "false"}};
  if (!request.scratch_directory.empty()) {
    spec.parameters["scratch_directory"] = request.scratch_directory;
  }
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunVerify(operation, request);
  });
}

absl::StatusOr<OperationResult> Node::RunVerify(OperationContext& context,
                                                const VerifyBackupRequest& request) {
  METAL_ASSIGN_OR_RETURN(const backup::BackupInfo info, GetBackup(context.spec.subject));
  backup::VerifyRequest verify;
  verify.backup = info.label;
  verify.system_identifier = info.header.system_identifier;
  verify.rehearse = request.rehearse;
  verify.scratch_directory = request.scratch_directory;
  METAL_ASSIGN_OR_RETURN(const backup::VerifyReport report,
                         backup::VerifyBackup(verify, BackupContext(context.progress)));
  OperationResult result;
  result.name = Name(info.label);
  result.values = {{"files", fmt::format("{}", report.files)},
                   {"frames", fmt::format("{}", report.frames)},
                   {"bytes", fmt::format("{}", report.bytes)},
                   {"stored_bytes", fmt::format("{}", report.stored_bytes)},
                   {"wal_segments", fmt::format("{}", report.wal_segments)},
                   {"seconds", Seconds(report.elapsed)},
                   {"state", report.suspect ? "suspect" : "complete"},
                   {"rehearsal", report.rehearsal}};
  return result;
}

absl::StatusOr<std::vector<backup::BackupInfo>> Node::ListBackups() {
  METAL_ASSIGN_OR_RETURN(const backup::Catalog catalog, OpenCatalog());
  METAL_ASSIGN_OR_RETURN(const std::optional<uint64_t> system, OwnSystem());
  if (system) return catalog.List(*system);
  // A host to be restored.
  METAL_ASSIGN_OR_RETURN(const std::vector<uint64_t> systems, catalog.repository().ListSystems());
  std::vector<backup::BackupInfo> all;
  for (const uint64_t each : systems) {
    METAL_ASSIGN_OR_RETURN(std::vector<backup::BackupInfo> backups, catalog.List(each));
    std::move(backups.begin(), backups.end(), std::back_inserter(all));
  }
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.header.stop_time > b.header.stop_time; });
  return all;
}

absl::StatusOr<backup::BackupInfo> Node::GetBackup(const std::string& name) {
  METAL_RETURN_IF_ERROR(CheckBackupName(name));
  METAL_ASSIGN_OR_RETURN(const backup::Catalog catalog, OpenCatalog());
  const bool latest = name.ends_with("latest");
  const auto system = OwnSystem();
  if (!system.ok() && latest) return system.status();
  if (system.ok() && *system) {
    auto own = catalog.Get(**system, name);
    if (!absl::IsNotFound(own.status())) return own;
    // Another cluster's backup is found by its name, never by "latest".
    if (latest) return own;
    auto other = catalog.Find(name);
    return absl::IsNotFound(other.status()) ? own : other;
  }
  return catalog.Find(name);
}

absl::StatusOr<std::vector<backup::WalTimeline>> Node::ListArchivedTimelines() {
  METAL_RETURN_IF_ERROR(OpenCatalog().status());
  METAL_ASSIGN_OR_RETURN(const std::optional<uint64_t> system, OwnSystem());
  if (!system || parts_.wal_archive == nullptr) return std::vector<backup::WalTimeline>();
  return parts_.wal_archive->ListTimelines(*system);
}

}  // namespace metal::node
