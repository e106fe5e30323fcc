#include "agent/backup/backup.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "agent/backup/backup_room.h"
#include "agent/backup/backup_wal.h"
#include "agent/backup/control_copy.h"
#include "agent/backup/copy_pipeline.h"
#include "agent/backup/directory_walk.h"
#include "agent/backup/file_list.h"
#include "agent/backup/manifest.h"
#include "agent/backup/memory_budget.h"
#include "agent/backup/memory_plan.h"
#include "agent/backup/page_recheck.h"
#include "agent/backup/publish.h"
#include "agent/backup/replayed_tablespaces.h"
#include "agent/backup/tablespace_list.h"
#include "agent/backup/text_fields.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/pg/control_file.h"
#include "agent/pg/settings.h"
#include "agent/store/repository.h"
#include "agent/stream/page_checksum.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr int kDefaultLevel = 1;
constexpr uint32_t kFileMode = 0600;
constexpr size_t kPageEventsMax =
    10;  // events of single corrupt pages; the last event counts them all

absl::Time Microseconds(absl::Time time) { return absl::FromUnixMicros(absl::ToUnixMicros(time)); }

// The steps of one backup, in order. Whatever an error leaves behind is removed by Abandon.
class BackupRun {
 public:
  BackupRun(const BackupRequest& request, const SourceFactory& open_source,
            const OperationContext& context)
      : request_(request), open_source_(open_source), context_(context) {}

  absl::StatusOr<BackupInfo> Run() {
    METAL_RETURN_IF_ERROR(Prepare());
    absl::Status status = Copy();
    if (status.ok()) status = Complete();
    if (!status.ok()) {
      pipeline_.reset();  // its codec threads may be asking the source
      source_.reset();    // ends the backup mode
      Abandon();
      return base::Annotate(status, fmt::format("backup {}", header_.label));
    }
    BackupInfo info;
    info.label = header_.label;
    info.state = header_.checksums == ChecksumVerdict::kSuspect ? BackupState::kSuspect
                                                                : BackupState::kComplete;
    info.header = header_;
    return info;
  }

  const std::string& label() const { return header_.label; }

 private:
  absl::Status Prepare();
  absl::Status ChooseCodec();
  absl::Status ChooseLabel();
  absl::Status TakeMemory();
  absl::Status Copy();
  absl::StatusOr<SourceStart> OpenSource();
  absl::Status StartSource();
  CopyOptions ConfiguredOptions() const;
  absl::Status MakePipeline();
  absl::StatusOr<uint64_t> CountBytes();
  absl::Status CopyFiles();
  absl::Status CopyControlFile();
  absl::Status SettleTablespaces();
  absl::Status StopSource();
  absl::Status FinishFiles();
  absl::Status Complete();
  absl::Status Publish();
  void ReportPages();
  void Abandon();
  absl::Status AddMemoryFile(std::string_view path, const std::string& contents);
  void Emit(observe::Severity severity, std::string type, std::string message);
  WalkOptions Walk() const {
    WalkOptions options{context_.config.pg_data_dir, header_.postgres_version / 10000,
                        header_.catalog_version};
    options.tablespaces.emplace();
    for (const auto& [oid, location] : tablespaces_) options.tablespaces->insert(oid);
    return options;
  }

  const BackupRequest& request_;
  const SourceFactory& open_source_;
  const OperationContext& context_;
  std::optional<store::Repository> repository_;
  base::UniqueFd lock_;
  BackupHeader header_;
  stream::CodecKind codec_ = stream::CodecKind::kZstd;
  bool checksums_on_ = false;
  absl::Time old_checkpoint_;   // of a checkpoint that began before the WAL of the backup
  TablespaceList tablespaces_;  // that are there right after the start
  std::set<uint32_t> copied_tablespaces_;  // of those with a link, by the walk
  std::string backup_directory_, pack_directory_;
  std::optional<BackupWatch> watch_;
  std::unique_ptr<BackupSource> source_;
  std::unique_ptr<PageRechecker> rechecker_;
  std::unique_ptr<FileListWriter> list_;
  MemoryShare memory_;  // of the pipeline; given back after it
  std::optional<base::Throttle> throttle_;
  std::unique_ptr<CopyPipeline> pipeline_;
};

void BackupRun::Emit(observe::Severity severity, std::string type, std::string message) {
  EmitEvent(context_, severity, std::move(type), "backups/" + header_.label, std::move(message));
}

absl::Status BackupRun::ChooseCodec() {
  METAL_ASSIGN_OR_RETURN(const stream::CodecKind configured,
                         stream::ParseCodec(context_.config.backup_codec));
  codec_ = request_.codec.value_or(configured);
  header_.codec = std::string(stream::CodecName(codec_));
  header_.level = codec_ == configured ? context_.config.backup_level : kDefaultLevel;
  if (request_.level) header_.level = *request_.level;
  if (codec_ == stream::CodecKind::kNone) header_.level = 0;
  // Refuses a bad level, and one that memory does not hold, before anything starts.
  const CopyOptions options = ConfiguredOptions();
  METAL_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(options));
  if (plan.threads < options.threads) {
    base::LogWarning("backup.fewer_threads wanted={} used={} memory={}", options.threads,
                     plan.threads, options.memory.ToString());
  }
  return absl::OkStatus();
}

absl::Status BackupRun::ChooseLabel() {
  header_.start_time = Microseconds(context_.clock.Now());
  const std::string stamp =
      absl::FormatTime("%Y%m%dT%H%M%SZ", header_.start_time, absl::UTCTimeZone());
  header_.label = request_.label.empty() ? stamp + "-F" : request_.label;
  if (!store::IsValidLabel(header_.label) || header_.label == "latest") {
    return base::Error(
        absl::StatusCode::kInvalidArgument,
        "backup label \"{}\" is not valid. HINT: use at most 64 letters, digits, dots, "
        "dashes or underscores",
        EscapeField(header_.label));
  }
  for (int i = 2;; ++i) {
    backup_directory_ = repository_->BackupDirectory(header_.system_identifier, header_.label);
    pack_directory_ = repository_->PackDirectory(header_.system_identifier, header_.label);
    METAL_ASSIGN_OR_RETURN(const bool listed, base::Exists(backup_directory_));
    METAL_ASSIGN_OR_RETURN(const bool packed, base::Exists(pack_directory_));
    if (!listed && !packed) break;
    if (!request_.label.empty()) {
      return base::Error(absl::StatusCode::kAlreadyExists,
                         "backup {} exists. HINT: choose another label", header_.label);
    }
    header_.label = fmt::format("{}-F{}", stamp, i);
  }
  return absl::OkStatus();
}

// Everything before files of this backup exist.
absl::Status BackupRun::Prepare() {
  context_.progress.BeginPhase("preparing");
  header_.annotations = request_.annotations;
  METAL_RETURN_IF_ERROR(ChooseCodec());
  METAL_ASSIGN_OR_RETURN(
      store::Repository repository,
      store::Repository::OpenKnown(context_.config.repository_path, context_.config.state_dir));
  repository_ = std::move(repository);
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control,
                         pg::ReadControlFile(context_.config.pg_data_dir));
  header_.system_identifier = control.system_identifier;
  old_checkpoint_ = std::min(control.checkpoint_time, context_.clock.Now());
  METAL_ASSIGN_OR_RETURN(lock_, repository_->LockForBackup(control.system_identifier));
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.locked"));
  METAL_ASSIGN_OR_RETURN(const uint64_t freed,
                         Catalog(*repository_).RemoveGarbage(control.system_identifier));
  if (freed > 0) {
    base::LogInfo("backup.garbage_removed system={} bytes={}", control.system_identifier, freed);
  }
  if (!request_.ignore_free_space) {
    METAL_ASSIGN_OR_RETURN(const auto earlier,
                           Catalog(*repository_).List(control.system_identifier));
    METAL_RETURN_IF_ERROR(CheckBackupRoom(BackupRoomOf(context_.config, codec_), earlier));
  }
  METAL_RETURN_IF_ERROR(ChooseLabel());
  return TakeMemory();
}

// Before the server is in backup mode, because it may have to wait for other operations.
absl::Status BackupRun::TakeMemory() {
  if (context_.memory == nullptr) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(ConfiguredOptions()));
  METAL_ASSIGN_OR_RETURN(memory_,
                         context_.memory->Take({plan.bytes}, {plan.least}, context_.progress));
  return absl::OkStatus();
}

absl::StatusOr<SourceStart> BackupRun::OpenSource() {
  METAL_ASSIGN_OR_RETURN(source_, open_source_());
  if (context_.wal_archive != nullptr) {
    METAL_ASSIGN_OR_RETURN(const SourceArchiving archiving, source_->Archiving());
    METAL_RETURN_IF_ERROR(CheckArchiving(
        archiving, pg::ArchiveCommand(context_.config.wal_helper, context_.config.wal_socket)));
  }
  SourceStartRequest request;
  request.label = "metal " + header_.label;
  request.fast_checkpoint = !request_.spread_checkpoint;
  request.cancelled = [this] { return context_.progress.cancelled(); };
  return source_->Start(request);
}

absl::Status BackupRun::StartSource() {
  context_.progress.BeginPhase("starting backup");
  METAL_ASSIGN_OR_RETURN(const SourceStart start, OpenSource());
  METAL_ASSIGN_OR_RETURN(tablespaces_, ListTablespaces(context_.config.pg_data_dir));
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.started"));
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control,
                         pg::ReadControlFile(context_.config.pg_data_dir));
  if (start.system_identifier != control.system_identifier) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "the server has system identifier {}, {} has {}. HINT: check "
                       "postgres.data_dir and postgres.port",
                       start.system_identifier, context_.config.pg_data_dir,
                       control.system_identifier);
  }
  header_.postgres_version = start.postgres_version;
  header_.from_standby = start.from_standby;
  header_.timeline = start.timeline;
  header_.start_lsn = start.start_lsn;
  header_.control_version = control.control_version;
  header_.catalog_version = control.catalog_version;
  header_.page_size = control.block_size;
  header_.segment_blocks = control.segment_blocks;
  header_.wal_segment_size = control.wal_segment_size;
  watch_.emplace(BackupRoomOf(context_.config, codec_), context_.clock);
  checksums_on_ = control.checksum_version != 0 && control.block_size == stream::kPageSize;
  char* resolved = realpath(context_.config.pg_data_dir.c_str(), nullptr);
  header_.data_directory = resolved != nullptr ? resolved : context_.config.pg_data_dir;
  free(resolved);
  return absl::OkStatus();
}

CopyOptions BackupRun::ConfiguredOptions() const {
  CopyOptions options;
  options.codec = codec_;
  options.level = header_.level;
  options.threads = CodecThreads(context_.config.backup_threads);
  options.queue_depth = static_cast<uint32_t>(std::max(context_.config.backup_queue_depth, 1));
  options.memory = context_.config.backup_memory;
  if (memory_.bytes().value != 0) options.memory = memory_.bytes();
  return options;
}

absl::Status BackupRun::MakePipeline() {
  CopyOptions options = ConfiguredOptions();
  options.data_directory = context_.config.pg_data_dir;
  options.page_size = header_.page_size;
  options.segment_blocks = header_.segment_blocks;
  options.check_pages = checksums_on_;
  options.packs.directory = pack_directory_;
  options.packs.system_identifier = header_.system_identifier;
  options.packs.label = header_.label;
  options.watch = [this] { return watch_->Check(); };
  throttle_.emplace(request_.rate_limit, context_.clock, context_.throttle);
  options.throttle = &*throttle_;
  METAL_ASSIGN_OR_RETURN(const uring::EngineKind kind,
                         uring::ParseEngineKind(context_.config.io_engine));
  METAL_ASSIGN_OR_RETURN(uring::EngineChoice choice,
                         context_.make_engine(kind, CopyEngineDepth(options)));
  header_.io_engine = std::string(choice.engine->name());
  PageRechecker::Options recheck;
  recheck.start_lsn = header_.start_lsn;
  recheck.current_lsn = [this] { return source_->CurrentLsn(); };
  recheck.read = MakePageReader(context_.config.pg_data_dir);
  rechecker_ = std::make_unique<PageRechecker>(std::move(recheck), context_.clock);
  METAL_ASSIGN_OR_RETURN(pipeline_,
                         CopyPipeline::Create(std::move(options), std::move(choice.engine),
                                              rechecker_.get(), *list_, context_.progress));
  return absl::OkStatus();
}

// Only for the progress report: a walk of its own, so that no list of files is kept.
absl::StatusOr<uint64_t> BackupRun::CountBytes() {
  DirectoryWalk walk(Walk());
  WalkEntry entry;
  uint64_t bytes = 0;
  do {
    METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
    METAL_RETURN_IF_ERROR(walk.Next(entry));
    if (entry.kind == WalkKind::kFile) bytes += entry.size;
  } while (entry.kind != WalkKind::kEnd);
  for (const std::string& path : walk.special_files()) {
    Emit(observe::Severity::kWarning, "backup.special_file",
         fmt::format("{} is neither a file nor a directory and is left out", path));
  }
  return bytes;
}

absl::Status BackupRun::Copy() {
  METAL_RETURN_IF_ERROR(base::MakeDirectories(backup_directory_, 0750));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(pack_directory_, 0750));
  METAL_ASSIGN_OR_RETURN(list_, FileListWriter::Create(JoinPath(backup_directory_, kFileListName)));
  METAL_RETURN_IF_ERROR(StartSource());
  METAL_RETURN_IF_ERROR(MakePipeline());
  context_.progress.BeginPhase("scanning files");
  METAL_ASSIGN_OR_RETURN(const uint64_t total, CountBytes());
  context_.progress.BeginPhase("copying files", total);
  const base::MonotonicTime begin = context_.clock.Monotonic();
  METAL_RETURN_IF_ERROR(CopyFiles());
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.copied"));
  METAL_RETURN_IF_ERROR(CopyControlFile());
  METAL_RETURN_IF_ERROR(StopSource());
  METAL_RETURN_IF_ERROR(FinishFiles());
  header_.copy_time = absl::Floor(context_.clock.Monotonic() - begin, absl::Microseconds(1));
  return absl::OkStatus();
}

absl::Status BackupRun::CopyFiles() {
  DirectoryWalk walk(Walk());
  METAL_RETURN_IF_ERROR(pipeline_->CopyTree(walk));
  for (const uint32_t oid : walk.later_tablespaces()) {
    Emit(observe::Severity::kInfo, "backup.later_tablespace",
         fmt::format(
             "tablespace {} was created during the backup and is left to WAL replay, which needs "
             "its directory where the copy is started",
             oid));
  }
  copied_tablespaces_ = walk.given_tablespaces();
  return absl::OkStatus();
}

absl::Status BackupRun::AddMemoryFile(std::string_view path, const std::string& contents) {
  FileEntry entry;
  entry.path = path;
  entry.mode = kFileMode;
  entry.mtime = absl::ToUnixSeconds(context_.clock.Now());
  return pipeline_->AddFile(entry, contents);
}

// After all other files: on a standby its minimum recovery point is where the copy becomes
// consistent.
absl::Status BackupRun::CopyControlFile() {
  METAL_ASSIGN_OR_RETURN(const ControlCopy copy,
                         CopyControl(context_.config.pg_data_dir, context_.clock));
  if (header_.from_standby) header_.stop_lsn = copy.control.min_recovery;
  return AddMemoryFile(kControlPath, copy.bytes);
}

// The server noted its tablespaces a moment before this agent looked, and tells them only now.
// List, manifest and map must name the same ones.
absl::Status BackupRun::SettleTablespaces() {
  // Noted, but dropped before it was copied: the copy has it, without files, until replay drops it.
  header_.tablespaces = ParseTablespaceMap(header_.tablespace_map);
  for (auto& [oid, location] : header_.tablespaces) {
    if (const auto link = tablespaces_.find(oid); link != tablespaces_.end())
      location = link->second;
    if (copied_tablespaces_.contains(oid)) continue;
    METAL_RETURN_IF_ERROR(list_->AddTablespace(oid, location));
  }
  // Copied, but created after the server noted: replay makes it anew.
  for (const uint32_t oid : copied_tablespaces_) {
    const std::string& location = tablespaces_[oid];
    if (!header_.tablespaces.emplace(oid, location).second) continue;
    header_.tablespace_map += TablespaceMapLine(oid, location);
  }
  return absl::OkStatus();
}

absl::Status BackupRun::StopSource() {
  context_.progress.BeginPhase("stopping backup");
  METAL_ASSIGN_OR_RETURN(SourceStop stop, source_->Stop());
  source_.reset();
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.stopped"));
  if (stop.timeline != header_.timeline) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "the timeline changed from {} to {} during the backup. HINT: take it again",
                       header_.timeline, stop.timeline);
  }
  header_.stop_lsn = std::max(header_.stop_lsn, stop.stop_lsn);
  header_.backup_label = std::move(stop.backup_label);
  header_.tablespace_map = std::move(stop.tablespace_map);
  METAL_RETURN_IF_ERROR(SettleTablespaces());
  METAL_RETURN_IF_ERROR(AddMemoryFile("backup_label", header_.backup_label));
  if (!header_.tablespace_map.empty()) {
    METAL_RETURN_IF_ERROR(AddMemoryFile("tablespace_map", header_.tablespace_map));
  }
  return absl::OkStatus();
}

absl::Status BackupRun::FinishFiles() {
  context_.progress.BeginPhase("syncing files");
  METAL_RETURN_IF_ERROR(pipeline_->Finish());
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.packs_written"));
  METAL_ASSIGN_OR_RETURN(const FileListTotals totals, list_->Finish());
  METAL_RETURN_IF_ERROR(base::SyncDirectory(pack_directory_));
  METAL_RETURN_IF_ERROR(base::SyncDirectory(backup_directory_));
  const CopyTotals& copied = pipeline_->totals();
  header_.files = totals.files;
  header_.directories = totals.directories;
  header_.bytes = totals.bytes;
  header_.frames = copied.frames;
  header_.stored_bytes = pipeline_->packs().stored_bytes();
  header_.file_list_bytes = totals.raw_bytes;
  header_.file_list_sha256 = totals.sha256;
  for (const auto& pack : pipeline_->packs().packs()) {
    header_.packs.push_back({pack->name, pack->size});
  }
  header_.corrupt_page_count = copied.corrupt_page_count;
  header_.corrupt_pages = copied.corrupt_pages;
  header_.pages_in_window = copied.pages_in_window;
  header_.checksums = !checksums_on_                   ? ChecksumVerdict::kUnchecked
                      : copied.corrupt_page_count == 0 ? ChecksumVerdict::kClean
                                                       : ChecksumVerdict::kSuspect;
  base::LogInfo("backup.copied label={} files={} frames={} vanished={} shrunk={}", header_.label,
                totals.files, copied.frames, copied.vanished_files, copied.shrunk_files);
  pipeline_.reset();  // the buffers are not needed while waiting for WAL
  memory_ = {};
  return absl::OkStatus();
}

// From the rename on the backup exists.
absl::Status BackupRun::Publish() {
  context_.progress.BeginPhase("publishing");
  METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.before_publish"));
  header_.stop_time = Microseconds(context_.clock.Now());
  return PublishManifest(header_, backup_directory_);
}

void BackupRun::ReportPages() {
  for (size_t i = 0; i < std::min(header_.corrupt_pages.size(), kPageEventsMax); ++i) {
    const CorruptPage& page = header_.corrupt_pages[i];
    Emit(observe::Severity::kCritical, "backup.corrupt_page",
         fmt::format("{} block {}: {}", page.path, page.block, page.reason));
  }
}

absl::Status BackupRun::Complete() {
  ReportPages();
  METAL_RETURN_IF_ERROR(WaitForBackupWal(header_, request_.wal_patience, context_));
  METAL_RETURN_IF_ERROR(NoteCreatedTablespaces(header_, old_checkpoint_, context_));
  METAL_RETURN_IF_ERROR(Publish());
  const double seconds = absl::ToDoubleSeconds(header_.copy_time);
  const double rate = seconds > 0 ? static_cast<double>(header_.bytes) / seconds / 1e6 : 0;
  const bool suspect = header_.checksums == ChecksumVerdict::kSuspect;
  Emit(suspect ? observe::Severity::kCritical : observe::Severity::kInfo,
       suspect ? "backup.suspect" : "backup.completed",
       fmt::format(
           "{} in {} files, stored in {}, {:.0f} MB/s with {}{}",
           base::ByteCount{header_.bytes}.ToString(), header_.files,
           base::ByteCount{header_.stored_bytes}.ToString(), rate, header_.io_engine,
           suspect ? fmt::format("; {} pages do not verify", header_.corrupt_page_count) : ""));
  return base::FaultPoint("backup.completed");
}

// The manifest goes first: without it the rest is garbage that the next run removes.
void BackupRun::Abandon() {
  pipeline_.reset();
  list_.reset();
  absl::Status status = base::RemoveTree(JoinPath(backup_directory_, kManifestName));
  if (status.ok()) status = base::RemoveTree(pack_directory_);
  if (status.ok()) status = base::RemoveTree(backup_directory_);
  if (!status.ok()) {
    base::LogWarning("backup.cleanup_failed label={} reason=\"{}\"", header_.label,
                     std::string(status.message()));
  }
}

}  // namespace

absl::StatusOr<BackupInfo> CreateBackup(const BackupRequest& request,
                                        const SourceFactory& open_source,
                                        const OperationContext& context) {
  BackupRun run(request, open_source, context);
  auto info = run.Run();
  if (!info.ok()) {
    const bool cancelled = absl::IsCancelled(info.status());
    EmitEvent(context, cancelled ? observe::Severity::kInfo : observe::Severity::kError,
              cancelled ? "backup.cancelled" : "backup.failed", "backups/" + run.label(),
              std::string(info.status().message()));
  }
  return info;
}

}  // namespace metal::backup
