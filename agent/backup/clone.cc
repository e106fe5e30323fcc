#include "agent/backup/clone.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "agent/backup/clone_receiver.h"
#include "agent/backup/clone_settings.h"
#include "agent/backup/clone_source.h"
#include "agent/backup/control_copy.h"
#include "agent/backup/copy_rules.h"
#include "agent/backup/disk_usage.h"
#include "agent/backup/restore_notes.h"
#include "agent/backup/tablespace_list.h"
#include "agent/backup/tablespace_map.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/pg/control_file.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr absl::Duration kConnect = absl::Seconds(10);
constexpr uint32_t kDepthFactor = 3;  // as a restore: this disk serves nobody else yet

uint8_t Type(CloneMessage message) { return static_cast<uint8_t>(message); }

absl::Status Refused(std::string text) {
  return base::WithReason(absl::FailedPreconditionError(std::move(text)), {"CLONE_SOURCE", {}});
}

}  // namespace

Clone::Clone(CloneRequest request, OperationContext context)
    : request_(std::move(request)), context_(std::move(context)) {}

// ---- the control connection

// A connection that breaks has no next step to tell; the clone has.
absl::Status Clone::Lost(const absl::Status& status) const {
  if (!absl::IsUnavailable(status) || absl::StrContains(status.message(), "HINT: ")) return status;
  return base::Error(status.code(), "{}. HINT: clone again when the agent at {} answers",
                     std::string(status.message()), request_.source.ToString());
}

absl::StatusOr<transfer::Channel::Received> Clone::Hear(transfer::Channel& channel,
                                                        CloneMessage wanted) {
  while (true) {
    METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
    auto heard = channel.ReadMessage();
    if (!heard.ok()) return Lost(heard.status());
    const transfer::Channel::Received received = *std::move(heard);
    if (received.header.payload_length != 0) {
      return absl::DataLossError("the source sent bulk data on the control connection");
    }
    if (received.header.type == Type(wanted)) return received;
    if (received.header.type == Type(CloneMessage::kFailure)) {
      return base::Annotate(DecodeFailure(received.body), "source");
    }
    if (received.header.type == Type(CloneMessage::kStatus)) {
      METAL_RETURN_IF_ERROR(DecodeCloneStatus(received.body).status());
    } else if (received.header.type != Type(CloneMessage::kAlive)) {
      return base::Error(absl::StatusCode::kDataLoss,
                         "the source sent message {}. HINT: run the same metal-agent on both nodes",
                         received.header.type);
    }
  }
}

absl::StatusOr<std::unique_ptr<transfer::Channel>> Clone::Greet() {
  auto channel = transfer::Channel::Connect(request_.source, request_.tls, kConnect);
  if (!channel.ok()) return Lost(channel.status());
  const absl::Status said =
      (*channel)->WriteMessage(Type(CloneMessage::kHello), 0, Encode(CloneHello{request_.node_id}));
  METAL_RETURN_IF_ERROR(Lost(said));
  METAL_ASSIGN_OR_RETURN(const auto received, Hear(**channel, CloneMessage::kWelcome));
  METAL_ASSIGN_OR_RETURN(welcome_, DecodeCloneWelcome(received.body));
  return channel;
}

absl::Status Clone::CheckSource() const {
  const std::string address = request_.source.ToString();
  struct stat status {};
  const bool there = stat(request_.target_directory.c_str(), &status) == 0;
  METAL_ASSIGN_OR_RETURN(const std::string boot_id, ReadBootId());
  const bool same_directory = there && boot_id == welcome_.boot_id &&
                              status.st_dev == welcome_.device && status.st_ino == welcome_.inode;
  if (welcome_.node_id == request_.node_id || same_directory) {
    return Refused(fmt::format(
        "the source {} is this node itself ({}). HINT: give the transfer address of another node",
        address, same_directory ? "the same data directory" : "the same node_id"));
  }
  if (welcome_.postgres_major != request_.postgres_major) {
    return Refused(fmt::format(
        "the source {} runs PostgreSQL {}, this node has the programs of {}. HINT: set "
        "postgres.bin_dir to those of {}",
        address, welcome_.postgres_major, request_.postgres_major, welcome_.postgres_major));
  }
  return absl::OkStatus();
}

absl::Status Clone::CheckExisting() {
  const std::string& directory = request_.target_directory;
  METAL_ASSIGN_OR_RETURN(existing_, pg::InspectDataDirectory(directory));
  replaces_ = existing_.kind == pg::DataDirectoryKind::kCluster || existing_.half_rewound();
  if (existing_.kind == pg::DataDirectoryKind::kForeign) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "{} holds something that is no data directory. HINT: empty it yourself",
                    directory),
        {"DATA_DIRECTORY_FOREIGN", {{"data_directory", directory}}});
  }
  if (!replaces_) return absl::OkStatus();
  if (!request_.replace) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "{} holds a cluster. HINT: replace it (--replace), or move it away", directory),
        {"DATA_DIRECTORY_NOT_EMPTY", {{"data_directory", directory}}});
  }
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(directory));
  existing_catalog_ = control.catalog_version;
  if (control.system_identifier == welcome_.system_identifier) return absl::OkStatus();
  return Refused(fmt::format(
      "{} holds cluster {}, the source {} has {}: not replaced. HINT: move it away yourself if it "
      "is not needed",
      directory, control.system_identifier, request_.source.ToString(),
      welcome_.system_identifier));
}

// A tablespace inside the source's data directory moves with it; others stay where they are unless
// mapped.
absl::StatusOr<RestoreTarget::Options> Clone::TargetOptions(
    const std::map<uint32_t, std::string>& tablespaces) {
  RestoreTarget::Options options;
  options.directory = request_.target_directory;
  options.wal_directory = request_.wal_directory;
  options.version_directory =
      TablespaceVersionDirectory(welcome_.postgres_major, welcome_.catalog_version);
  options.backup = "clone of " + welcome_.node_id;
  options.kept_out = {{"the repository", context_.config.repository_path}};
  const std::string inside = welcome_.data_directory + "/";
  locations_.clear();
  for (const auto& [oid, location] : tablespaces) {
    std::string place = location;
    if (const auto mapped = request_.tablespace_mapping.find(oid);
        mapped != request_.tablespace_mapping.end()) {
      place = mapped->second;
    } else if (location.starts_with(inside)) {
      place = JoinPath(request_.target_directory, location.substr(inside.size()));
      options.inside.insert(oid);
    }
    locations_[oid] = place;
  }
  for (const auto& [oid, place] : request_.tablespace_mapping) {
    if (tablespaces.contains(oid)) continue;
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "the source has no tablespace {}, which is mapped to {}. HINT: see "
                       "pg_tablespace of the source",
                       oid, place);
  }
  options.tablespaces = locations_;
  return options;
}

// The places outside of the directory that belong to the cluster in it.
absl::StatusOr<RestoreNotes> Clone::NotesOfExisting() const {
  RestoreNotes notes;
  METAL_ASSIGN_OR_RETURN(notes.id, NewRestoreId());
  notes.backup = "clone of " + welcome_.node_id;
  const std::string version = TablespaceVersionDirectory(existing_.major, existing_catalog_);
  for (const pg::TablespaceLink& link : existing_.tablespaces) {
    if (link.in_place || link.location.starts_with(existing_.real_path + "/")) continue;
    const std::string directory = JoinPath(link.location, version);
    METAL_ASSIGN_OR_RETURN(const bool there, base::Exists(directory));
    if (there) notes.version_directories.push_back(directory);
  }
  if (!existing_.wal_path.starts_with(existing_.real_path + "/")) {
    notes.wal_directory = existing_.wal_path;
  }
  return notes;
}

absl::StatusOr<std::map<uint64_t, uint64_t>> Clone::BytesToFree(const RestoreNotes& notes) const {
  std::map<uint64_t, uint64_t> freed;
  METAL_RETURN_IF_ERROR(AddDiskUsage(existing_.real_path, freed));
  for (const std::string& directory : notes.version_directories) {
    METAL_RETURN_IF_ERROR(AddDiskUsage(directory, freed));
  }
  if (!notes.wal_directory.empty()) METAL_RETURN_IF_ERROR(AddDiskUsage(notes.wal_directory, freed));
  return freed;
}

// A mark without a sentinel permits nothing, so one that an earlier attempt left is taken over.
absl::Status Clone::MarkExisting(const RestoreNotes& notes) const {
  std::vector<std::string> places = notes.version_directories;
  if (!notes.wal_directory.empty()) places.push_back(notes.wal_directory);
  for (const std::string& place : places) {
    METAL_RETURN_IF_ERROR(UnmarkPlace(place));
    METAL_RETURN_IF_ERROR(MarkDirectory(place, notes.id));
  }
  return absl::OkStatus();
}

void Clone::UnmarkExisting(const RestoreNotes& notes) const {
  std::vector<std::string> places = notes.version_directories;
  if (!notes.wal_directory.empty()) places.push_back(notes.wal_directory);
  for (const std::string& place : places) {
    if (const absl::Status status = UnmarkPlace(place); !status.ok()) {
      base::LogWarning("clone.mark_left place={} reason=\"{}\"", place,
                       std::string(status.message()));
    }
  }
}

absl::Status Clone::Look() {
  context_.progress.BeginPhase("looking at the source");
  METAL_ASSIGN_OR_RETURN(const auto channel, Greet());
  // What follows takes its time; a second connection opens the backup.
  METAL_RETURN_IF_ERROR(channel->WriteMessage(Type(CloneMessage::kAbort), 0,
                                              EncodeFailure(absl::CancelledError("looked"))));
  METAL_RETURN_IF_ERROR(CheckSource());
  METAL_RETURN_IF_ERROR(CheckExisting());
  METAL_ASSIGN_OR_RETURN(RestoreTarget::Options options, TargetOptions(welcome_.tablespaces));
  const RestoreTarget target(std::move(options));
  if (!replaces_) {
    METAL_RETURN_IF_ERROR(target.Check());
    return target.CheckSpace(welcome_.bytes);
  }
  METAL_ASSIGN_OR_RETURN(const RestoreNotes notes, NotesOfExisting());
  METAL_ASSIGN_OR_RETURN(const auto freed, BytesToFree(notes));
  return target.CheckSpace(welcome_.bytes, freed);
}

// Before the source's backup is open, and before anything is removed.
absl::Status Clone::TakeMemory() {
  if (context_.memory == nullptr) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(
      memory_,
      context_.memory->Take(CloneReceiveWanted(request_.links, request_.codec),
                            CloneReceiveLeast(request_.links, request_.codec), context_.progress));
  return absl::OkStatus();
}

absl::Status Clone::Open(base::Lsn replay_lsn) {
  METAL_RETURN_IF_ERROR(TakeMemory());
  context_.progress.BeginPhase("starting the source's backup");
  const uint64_t looked_at = welcome_.system_identifier;
  METAL_ASSIGN_OR_RETURN(const auto channel, Greet());
  if (welcome_.system_identifier != looked_at) {
    return Refused("the source holds another cluster than a moment ago. HINT: clone again");
  }
  CloneBegin begin;
  begin.label = "metal clone " + request_.node_id;
  begin.replay_lsn = replay_lsn;
  begin.rate_limit = request_.rate_limit;
  begin.codec = request_.codec;
  METAL_RETURN_IF_ERROR(Lost(channel->WriteMessage(Type(CloneMessage::kBegin), 0, Encode(begin))));
  METAL_ASSIGN_OR_RETURN(const auto received, Hear(*channel, CloneMessage::kPlan));
  METAL_ASSIGN_OR_RETURN(plan_, DecodeClonePlan(received.body));
  METAL_ASSIGN_OR_RETURN(RestoreTarget::Options options, TargetOptions(plan_.tablespaces));
  target_.emplace(std::move(options));
  report_.source_node = welcome_.node_id;
  report_.start_lsn = plan_.start_lsn;
  report_.timeline = plan_.timeline;
  return absl::OkStatus();
}

void Clone::Abandon(const absl::Status& why) {
  if (plan_.session.empty()) return;
  auto channel = transfer::Channel::Connect(request_.source, request_.tls, kConnect);
  absl::Status status = channel.status();
  if (status.ok()) {
    status = (*channel)->WriteMessage(Type(CloneMessage::kGiveUp), 0,
                                      Encode(CloneGiveUp{plan_.session, why}));
  }
  // Until the source has taken it and closes.
  while (status.ok()) status = (*channel)->ReadMessage().status();
}

// ---- the copy

// First the marks, then everything that can still be refused, then the sentinel: from there on the
// directory is no cluster any more.
absl::Status Clone::RemoveExisting() {
  if (!replaces_) return absl::OkStatus();
  context_.progress.BeginPhase("removing the old directory");
  METAL_ASSIGN_OR_RETURN(const RestoreNotes notes, NotesOfExisting());
  absl::Status status = MarkExisting(notes);
  if (status.ok()) status = target_->CheckReplacing(notes);
  if (status.ok()) status = base::FaultPoint("clone.before_removal");
  if (!status.ok()) {
    UnmarkExisting(notes);
    return status;
  }
  emptied_ = true;
  METAL_RETURN_IF_ERROR(WriteRestoreNotes(request_.target_directory, notes));
  // The caller has made sure that no server runs: it names none that lives.
  METAL_RETURN_IF_ERROR(base::RemoveTree(JoinPath(request_.target_directory, "postmaster.pid")));
  return base::FaultPoint("clone.marked");
}

// Links that files may need before the record of their directory arrives.
absl::Status Clone::MakeFixedPlaces() {
  FileListRecord record;
  record.kind = RecordKind::kDirectory;
  record.file.mode = 0700;
  for (const char* path : {"pg_tblspc", "pg_wal"}) {
    record.file.path = path;
    METAL_RETURN_IF_ERROR(target_->Make(record));
  }
  record.kind = RecordKind::kTablespace;
  for (const auto& [oid, location] : locations_) {
    record.tablespace = oid;
    METAL_RETURN_IF_ERROR(target_->Make(record));
  }
  return absl::OkStatus();
}

absl::Status Clone::MakeDirectory(const FileListRecord& record) {
  if (record.file.path == "pg_wal") return absl::OkStatus();  // may be a link
  return target_->Make(record);
}

absl::StatusOr<CloneEnd> Clone::Receive() {
  const base::AgentConfig& config = context_.config;
  CloneReceiveOptions options;
  options.source = request_.source;
  options.tls = request_.tls;
  options.session = plan_.session;
  options.links = request_.links;
  options.patience = request_.patience;
  options.queue_depth =
      static_cast<uint32_t>(std::max(config.backup_queue_depth, 1)) * kDepthFactor;
  options.codec = request_.codec;
  options.memory = memory_.bytes().value != 0 ? memory_.bytes() : config.backup_memory;
  options.target_directory = target_->directory();
  options.on_directory = [this](const FileListRecord& record) { return MakeDirectory(record); };
  METAL_ASSIGN_OR_RETURN(const uring::EngineKind kind, uring::ParseEngineKind(config.io_engine));
  METAL_ASSIGN_OR_RETURN(uring::EngineChoice choice,
                         context_.make_engine(kind, CloneEngineDepth(options)));
  METAL_ASSIGN_OR_RETURN(const auto receiver,
                         CloneReceiver::Create(std::move(options), std::move(choice.engine),
                                               context_.progress, context_.clock));
  context_.progress.BeginPhase("copying files", plan_.bytes);
  METAL_ASSIGN_OR_RETURN(CloneEnd end, receiver->Run());
  report_.files = receiver->totals().files;
  report_.bytes = receiver->totals().bytes;
  report_.reconnects = receiver->totals().reconnects;
  report_.io_engine = std::string(receiver->engine_name());
  if (end.files != report_.files) {
    return base::Error(absl::StatusCode::kDataLoss, "{} of {} files arrived. HINT: clone again",
                       report_.files, end.files);
  }
  return end;
}

// The server noted its tablespaces a moment before the source looked: links and map must name the
// same ones.
absl::Status Clone::WriteLabels(const CloneEnd& end) {
  std::string map = end.tablespace_map;
  const TablespaceList noted = ParseTablespaceMap(map);
  for (const auto& [oid, location] : noted) {
    if (locations_.contains(oid)) continue;
    // Dropped before it was looked at: replay drops it, but wants its directory first.
    METAL_RETURN_IF_ERROR(base::MakeDirectories(location, 0700));
  }
  map = RewriteTablespaceMap(map, locations_);
  for (const auto& [oid, location] : locations_) {
    if (!noted.contains(oid)) map += TablespaceMapLine(oid, location);
  }
  const std::string& directory = target_->directory();
  METAL_RETURN_IF_ERROR(WriteCloneFile(directory, "backup_label", end.backup_label));
  if (map.empty()) return absl::OkStatus();
  return WriteCloneFile(directory, "tablespace_map", map);
}

absl::Status Clone::Complete(const CloneEnd& end) {
  METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.before_sync"));
  context_.progress.BeginPhase("syncing files");
  METAL_RETURN_IF_ERROR(target_->Sync());
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.synced"));
  METAL_RETURN_IF_ERROR(pg::DecodeControlFile(std::as_bytes(std::span(end.control))).status());
  METAL_RETURN_IF_ERROR(
      base::WriteFileDurably(JoinPath(target_->directory(), kControlPath), end.control, 0600));
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.control_written"));
  return target_->Finish();
}

absl::StatusOr<CloneReport> Clone::Copy(const std::function<absl::Status()>& configure) {
  METAL_RETURN_IF_ERROR(RemoveExisting());
  const base::MonotonicTime begin = context_.clock.Monotonic();
  METAL_RETURN_IF_ERROR(target_->Begin());
  emptied_ = true;
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.begun"));
  METAL_RETURN_IF_ERROR(MakeFixedPlaces());
  METAL_ASSIGN_OR_RETURN(const CloneEnd end, Receive());
  const base::MonotonicTime received = context_.clock.Monotonic();
  memory_ = MemoryShare();
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.received"));
  context_.progress.BeginPhase("writing configuration");
  METAL_RETURN_IF_ERROR(WriteLabels(end));
  METAL_RETURN_IF_ERROR(ForgetSourcesRole(target_->directory()));
  METAL_RETURN_IF_ERROR(configure());
  METAL_RETURN_IF_ERROR(Complete(end));
  report_.stop_lsn = end.stop_lsn;
  report_.elapsed = context_.clock.Monotonic() - begin;
  report_.finish = context_.clock.Monotonic() - received;
  return report_;
}

}  // namespace metal::backup
