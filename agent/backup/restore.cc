#include "agent/backup/restore.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "agent/backup/catalog.h"
#include "agent/backup/copy_rules.h"
#include "agent/backup/file_list.h"
#include "agent/backup/manifest_json.h"
#include "agent/backup/recovery_settings.h"
#include "agent/backup/replayed_tablespaces.h"
#include "agent/backup/restore_notes.h"
#include "agent/backup/restore_places.h"
#include "agent/backup/restore_target.h"
#include "agent/backup/stored_backup.h"
#include "agent/backup/tablespace_map.h"
#include "agent/backup/unpack_pipeline.h"
#include "agent/base/crc32c.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/pg/data_directory.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr std::string_view kControlPath = "global/pg_control";
constexpr std::string_view kMapPath = "tablespace_map";
// A restore reads and writes at once, on a disk that serves nobody else yet: it keeps more in
// flight than a backup or a verification beside a running server. backup.memory still bounds it.
constexpr uint32_t kDepthFactor = 3;

uint32_t Crc(std::string_view bytes) { return base::Crc32c(std::as_bytes(std::span(bytes))); }

// Replaces a file of the target; the syncfs that follows makes it durable.
absl::Status WriteText(const std::string& path, std::string_view text) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd fd,
                         base::OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  METAL_RETURN_IF_ERROR(base::WriteAll(fd.get(), text, path));
  return fd.Close();
}

// The steps of one restore, in order.
class RestoreRun {
 public:
  RestoreRun(const RestoreRequest& request, const OperationContext& context)
      : request_(request), context_(context) {}

  absl::StatusOr<RestoreReport> Run() {
    METAL_RETURN_IF_ERROR(Prepare());
    if (request_.validate_only) return report_;
    const base::MonotonicTime begin = context_.clock.Monotonic();
    METAL_RETURN_IF_ERROR(target_->Begin());
    if (leftovers_) METAL_RETURN_IF_ERROR(target_->CheckSpace(space_, {}, request_.space_reserve));
    METAL_RETURN_IF_ERROR(base::FaultPoint("restore.begun"));
    METAL_RETURN_IF_ERROR(WriteFiles());
    METAL_RETURN_IF_ERROR(WriteConfiguration());
    METAL_RETURN_IF_ERROR(Complete());
    report_.elapsed = context_.clock.Monotonic() - begin;
    return report_;
  }

 private:
  absl::Status Prepare();
  absl::Status PlaceTablespaces(RestoreTarget::Options& options);
  absl::StatusOr<std::vector<RestorePlace>> KeptOut() const;
  absl::Status CheckWal();
  absl::Status CheckReplay(const std::string& version_directory);
  absl::Status WriteFiles();
  absl::Status AddToManifest(const FileEntry& entry);
  absl::Status WriteConfiguration();
  absl::Status Complete();

  const RestoreRequest& request_;
  const OperationContext& context_;
  std::optional<StoredBackup> backup_;
  std::map<uint32_t, std::string> locations_;  // of tablespaces in the restored cluster
  bool remapped_ = false;                      // some location differs from the backup's
  std::map<uint32_t, uint64_t> space_;         // bytes by tablespace OID, 0: the data directory
  bool leftovers_ = false;                     // of an earlier restore, in the target
  std::optional<RestoreTarget> target_;
  std::unique_ptr<BackupManifestWriter> json_;
  std::string control_;
  FileEntry control_entry_;
  RestoreReport report_;
};

// A tablespace inside the old data directory moves with it; others stay where they were unless
// mapped.
absl::Status RestoreRun::PlaceTablespaces(RestoreTarget::Options& options) {
  const BackupHeader& header = backup_->info.header;
  for (const auto& [oid, location] : header.tablespaces) {
    std::string place = location;
    const std::string inside = header.data_directory + "/";
    if (const auto mapped = request_.tablespace_mapping.find(oid);
        mapped != request_.tablespace_mapping.end()) {
      place = mapped->second;
    } else if (location.starts_with(inside)) {
      place = JoinPath(request_.target_directory, location.substr(inside.size()));
      options.inside.insert(oid);
    }
    remapped_ |= place != location;
    locations_[oid] = place;
  }
  for (const auto& [oid, place] : request_.tablespace_mapping) {
    if (header.tablespaces.count(oid) != 0) continue;
    if (header.created_tablespaces && header.created_tablespaces->contains(oid)) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "restore: tablespace {} was created during backup {}, and WAL replay puts "
                         "it where the source had it: it cannot be mapped. HINT: use a backup that "
                         "began later",
                         oid, header.label);
    }
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "restore: backup {} has no tablespace {}, which is mapped to {}. HINT: "
                       "metalctl backup show {}",
                       header.label, oid, place, header.label);
  }
  options.tablespaces = locations_;
  return absl::OkStatus();
}

// This node's cluster and its repository. A cluster whose disk is dead (it may be what is being
// restored elsewhere) is known by its configured paths alone.
absl::StatusOr<std::vector<RestorePlace>> RestoreRun::KeptOut() const {
  const base::AgentConfig& config = context_.config;
  std::vector<RestorePlace> places = {{"the repository", config.repository_path}};
  if (config.pg_data_dir.empty()) return places;
  METAL_ASSIGN_OR_RETURN(const bool own,
                         IsSamePlace(request_.target_directory, config.pg_data_dir));
  if (own) return places;
  places.push_back({"this node's data directory", config.pg_data_dir});
  places.push_back({"this node's WAL directory", config.pg_wal_dir});
  const auto live = pg::InspectDataDirectory(config.pg_data_dir);
  if (absl::IsDataLoss(live.status())) return places;
  if (!live.ok()) return base::Annotate(live.status(), "look at this node's cluster");
  places.push_back({"this node's WAL directory", live->wal_path});
  for (const pg::TablespaceLink& link : live->tablespaces) {
    places.push_back({fmt::format("this node's tablespace {} at", link.oid), link.location});
  }
  return places;
}

// Without the WAL of the backup itself the copy can never become consistent: better to know before
// the work.
absl::Status RestoreRun::CheckWal() {
  if (!request_.restore_command.empty()) return absl::OkStatus();
  return CheckBackupWal(backup_->info.header, context_).status();
}

// Replay must not reach the files of a cluster that lives on this host.
absl::Status RestoreRun::CheckReplay(const std::string& version_directory) {
  const BackupHeader& header = backup_->info.header;
  const auto created = CreatedTablespaces(header, context_);
  METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
  if (created.ok()) {
    METAL_RETURN_IF_ERROR(
        CheckPlacesOfReplay(request_.target_directory, *created, version_directory));
  } else {
    // WAL that is not here (restore_command brings it) must not keep a lost cluster from coming
    // back.
    base::LogWarning("restore.tablespaces_not_known backup={} reason=\"{}\"", header.label,
                     std::string(created.status().message()));
  }
  if (request_.recovery_target == RecoveryTarget::kImmediate) return absl::OkStatus();
  const std::string& live = context_.config.pg_data_dir;
  if (live.empty()) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const bool own, IsSamePlace(request_.target_directory, live));
  return own ? absl::OkStatus() : CheckTablespacesOfLive(request_.target_directory, header, live);
}

absl::Status RestoreRun::Prepare() {
  context_.progress.BeginPhase("checking backup");
  METAL_ASSIGN_OR_RETURN(StoredBackup backup,
                         OpenStoredBackup(context_.config.repository_path,
                                          request_.system_identifier, request_.backup));
  backup_ = std::move(backup);
  const BackupHeader& header = backup_->info.header;
  report_.backup = header.label;
  report_.target_directory = request_.target_directory;
  report_.system_identifier = header.system_identifier;
  report_.suspect = backup_->info.state == BackupState::kSuspect;
  RestoreTarget::Options options;
  options.directory = request_.target_directory;
  options.wal_directory = request_.wal_directory;
  options.version_directory =
      TablespaceVersionDirectory(header.postgres_version / 10000, header.catalog_version);
  options.backup = header.label;
  const std::string version_directory = options.version_directory;
  METAL_RETURN_IF_ERROR(PlaceTablespaces(options));
  METAL_ASSIGN_OR_RETURN(options.kept_out, KeptOut());
  target_.emplace(std::move(options));
  METAL_RETURN_IF_ERROR(target_->Check());
  METAL_RETURN_IF_ERROR(RecoverySettings(request_, context_.config).status());
  METAL_RETURN_IF_ERROR(CheckPacks(*backup_));
  METAL_ASSIGN_OR_RETURN(space_, ScanFileList(*backup_, context_.progress));
  // What an earlier restore left here is removed first, and may be all that fills the disk.
  METAL_ASSIGN_OR_RETURN(const auto notes, ReadRestoreNotes(request_.target_directory));
  leftovers_ = notes.has_value();
  if (!leftovers_) METAL_RETURN_IF_ERROR(target_->CheckSpace(space_, {}, request_.space_reserve));
  METAL_RETURN_IF_ERROR(CheckWal());
  return CheckReplay(version_directory);
}

absl::Status RestoreRun::AddToManifest(const FileEntry& entry) {
  if (entry.path != kMapPath || !remapped_) return json_->AddFile(entry);
  const std::string map = RewriteTablespaceMap(backup_->info.header.tablespace_map, locations_);
  FileEntry rewritten = entry;
  rewritten.size = map.size();
  rewritten.crc32c = Crc(map);
  METAL_RETURN_IF_ERROR(WriteText(JoinPath(target_->directory(), kMapPath), map));
  return json_->AddFile(rewritten);
}

absl::Status RestoreRun::WriteFiles() {
  const BackupHeader& header = backup_->info.header;
  BackupManifestWriter::Options json;
  json.path = JoinPath(target_->directory(), "backup_manifest");
  json.major_version = header.postgres_version / 10000;
  json.system_identifier = header.system_identifier;
  json.timeline = header.timeline;
  json.start_lsn = header.start_lsn;
  json.stop_lsn = header.stop_lsn;
  METAL_ASSIGN_OR_RETURN(json_, BackupManifestWriter::Create(std::move(json)));

  UnpackOptions options = UnpackOptionsFor(*backup_, context_);
  options.queue_depth *= kDepthFactor;
  options.target_directory = target_->directory();
  options.on_directory = [this](const FileListRecord& record) { return target_->Make(record); };
  options.captured = [](std::string_view path) { return path == kControlPath; };
  options.on_captured = [this](const FileEntry& entry, std::string_view contents) {
    control_ = contents;
    control_entry_ = entry;
    return absl::OkStatus();
  };
  options.on_file = [this](const FileEntry& entry) { return AddToManifest(entry); };
  METAL_ASSIGN_OR_RETURN(auto pipeline, MakeUnpackPipeline(std::move(options), context_));
  METAL_ASSIGN_OR_RETURN(auto list, OpenFileList(*backup_));
  context_.progress.BeginPhase("restoring files", header.bytes);
  METAL_RETURN_IF_ERROR(pipeline->Run(*list));
  report_.files = pipeline->totals().files;
  report_.bytes = pipeline->totals().bytes;
  report_.stored_bytes = pipeline->totals().stored_bytes;
  report_.io_engine = std::string(pipeline->engine_name());
  if (control_.empty()) {
    return base::Error(absl::StatusCode::kDataLoss,
                       "backup {} holds no {}. HINT: restore another backup", header.label,
                       kControlPath);
  }
  return base::FaultPoint("restore.files_written");
}

absl::Status RestoreRun::WriteConfiguration() {
  context_.progress.BeginPhase("writing configuration");
  METAL_ASSIGN_OR_RETURN(const pg::SettingMap recovery,
                         RecoverySettings(request_, context_.config));
  METAL_RETURN_IF_ERROR(
      WriteRecoverySettings(target_->directory(), request_, report_.backup, recovery));
  const bool standby = request_.recovery_target == RecoveryTarget::kStandby;
  return WriteText(JoinPath(target_->directory(), standby ? "standby.signal" : "recovery.signal"),
                   "");
}

absl::Status RestoreRun::Complete() {
  METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
  METAL_RETURN_IF_ERROR(json_->Finish());
  METAL_RETURN_IF_ERROR(base::FaultPoint("restore.before_sync"));
  context_.progress.BeginPhase("syncing files");
  METAL_RETURN_IF_ERROR(target_->Sync());
  METAL_RETURN_IF_ERROR(base::FaultPoint("restore.synced"));
  const std::string control = JoinPath(target_->directory(), kControlPath);
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(control, control_, control_entry_.mode));
  METAL_RETURN_IF_ERROR(base::FaultPoint("restore.control_written"));
  return target_->Finish();
}

}  // namespace

double RestoreReport::bytes_per_second() const {
  const double seconds = absl::ToDoubleSeconds(elapsed);
  return seconds > 0 ? static_cast<double>(bytes) / seconds : 0;
}

absl::StatusOr<RestoreReport> RestoreBackup(const RestoreRequest& request,
                                            const OperationContext& context) {
  RestoreRun run(request, context);
  auto report = run.Run();
  if (!report.ok()) {
    const std::string text(report.status().message());
    if (!request.validate_only) {
      EmitEvent(context, observe::Severity::kError, "restore.failed", request.target_directory,
                text);
    }
    return base::Annotate(report.status(), fmt::format("restore backup {} to {}", request.backup,
                                                       request.target_directory));
  }
  if (!request.validate_only) {
    EmitEvent(context, observe::Severity::kInfo, "restore.completed", request.target_directory,
              fmt::format("backup {}: {} in {} files, {:.0f} MB/s", report->backup,
                          base::ByteCount{report->bytes}.ToString(), report->files,
                          report->bytes_per_second() / 1e6));
  }
  return report;
}

}  // namespace metal::backup
