#include "agent/backup/clone_session.h"

#include <algorithm>

#include "agent/backup/control_copy.h"
#include "agent/backup/copy_rules.h"
#include "agent/backup/memory_plan.h"
#include "agent/backup/restore_notes.h"
#include "agent/backup/tablespace_list.h"
#include "agent/base/check.h"
#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/pg/replication.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(100);
constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kReplayPatience = absl::Minutes(10);
constexpr size_t kFillsPerTurn = 256;
constexpr size_t kWaitingReadsMax = 8;
constexpr size_t kOutstandingMax = 512;     // messages that the target has not acknowledged
constexpr size_t kRecordsFlush = 32 << 10;  // bytes of records that make a message
constexpr size_t kFramesMin = 4;
constexpr size_t kFramesBeside = 20;  // frames under way on the connections

uint32_t ParseTablespace(std::string_view path) {
  constexpr std::string_view kPrefix = "pg_tblspc/";
  if (!path.starts_with(kPrefix)) return 0;
  path.remove_prefix(kPrefix.size());
  return ParseOid(path.substr(0, path.find('/'))).value_or(0);
}

}  // namespace

absl::StatusOr<std::map<uint32_t, uint64_t>> CountCloneBytes(const WalkOptions& options) {
  constexpr uint64_t kBlock = 4096;
  DirectoryWalk walk(options);
  WalkEntry entry;
  std::map<uint32_t, uint64_t> bytes;
  do {
    METAL_RETURN_IF_ERROR(walk.Next(entry));
    if (entry.kind != WalkKind::kFile) continue;
    bytes[ParseTablespace(entry.path)] += (entry.size + kBlock - 1) / kBlock * kBlock;
  } while (entry.kind != WalkKind::kEnd);
  return bytes;
}

// Directories and complete files become lines of a file list for the target.
class CloneSession::Recorder final : public FileRecorder {
 public:
  absl::Status AddDirectory(std::string_view path, uint32_t mode) override {
    FileListRecord record;
    record.kind = RecordKind::kDirectory;
    record.file.path = path;
    record.file.mode = mode;
    AppendRecord(record, lines);
    return absl::OkStatus();
  }
  // The plan has told it.
  absl::Status AddTablespace(uint32_t, std::string_view) override { return absl::OkStatus(); }
  absl::Status AddFile(const FileEntry& file, std::span<const Extent>) override {
    FileListRecord record;
    record.kind = RecordKind::kFile;
    record.file = file;
    AppendRecord(record, lines);
    ++files;
    return absl::OkStatus();
  }

  std::string lines;
  uint64_t files = 0;
};

CloneSession::CloneSession(const CloneSourceParts& parts, const CloneBegin& request,
                           std::string target)
    : parts_(parts),
      request_(request),
      target_(std::move(target)),
      states_(kCloneLinksMax),
      recorder_(std::make_unique<Recorder>()),
      sender_({.wake = [this] { WakeRing(); },
               .rate_limit = request.rate_limit,
               .throttle = parts.throttle},
              parts.clock) {}

CloneSession::~CloneSession() {
  if (thread_.joinable()) {
    sender_.Fail(absl::UnavailableError("the source's agent stops. HINT: clone again"));
    thread_.Join();
  }
}

void CloneSession::WakeRing() {
  base::MutexLock lock(wake_mutex_);
  if (engine_ != nullptr) engine_->Wake();
}

void CloneSession::Emit(observe::Severity severity, std::string type, std::string message) {
  if (parts_.events == nullptr) return;
  observe::Event event;
  event.time = absl::InfinitePast();
  event.severity = severity;
  event.type = std::move(type);
  event.subject = target_;
  event.message = std::move(message);
  parts_.events->Append(std::move(event));
}

absl::StatusOr<std::shared_ptr<CloneSession>> CloneSession::Begin(const CloneSourceParts& parts,
                                                                  const CloneBegin& request,
                                                                  std::string target,
                                                                  std::function<bool()> cancelled) {
  std::shared_ptr<CloneSession> session(new CloneSession(parts, request, std::move(target)));
  METAL_RETURN_IF_ERROR(session->Open(std::move(cancelled)));
  session->Emit(observe::Severity::kInfo, "clone.serving",
                fmt::format("{} from {}", base::ByteCount{session->plan_.bytes}.ToString(),
                            session->plan_.start_lsn.ToString()));
  CloneSession* const raw = session.get();
  session->thread_ = base::Thread("clone-source", [raw] { raw->Run(); });
  return session;
}

// A standby starts its backup from the last checkpoint that it has replayed. Only when that is not
// older than the target's slot does the primary keep all the WAL that the copy needs.
absl::Status CloneSession::AwaitReplay(const std::function<bool()>& cancelled) {
  if (!request_.replay_lsn.valid()) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const auto session, parts_.connect());
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
  if (state.in_recovery && !state.pause_state.empty() && state.pause_state != "not paused") {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "the replay of this standby is paused: a copy of it could not begin. HINT: "
                       "ResumeReplay (metalctl replay resume), or clone from another node");
  }
  pg::WaitForLsnRequest wait;
  wait.lsn = request_.replay_lsn;
  wait.timeout = kReplayPatience;
  wait.cancelled = cancelled;
  return base::Annotate(pg::WaitForLsn(*session, parts_.clock, wait).status(),
                        "wait for the checkpoint of the primary");
}

absl::Status CloneSession::Open(std::function<bool()> cancelled) {
  METAL_RETURN_IF_ERROR(MakeEncoders());
  METAL_RETURN_IF_ERROR(TakeMemory(cancelled));
  METAL_RETURN_IF_ERROR(AwaitReplay(cancelled));
  METAL_ASSIGN_OR_RETURN(source_, parts_.open_source());
  SourceStartRequest request;
  request.label = request_.label;
  request.cancelled = std::move(cancelled);
  METAL_ASSIGN_OR_RETURN(const SourceStart start, source_->Start(request));
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.source_started"));
  METAL_RETURN_IF_ERROR(Prepare(start));
  return MakeReader(start);
}

absl::Status CloneSession::Prepare(const SourceStart& start) {
  const std::string& directory = parts_.config.pg_data_dir;
  METAL_ASSIGN_OR_RETURN(const TablespaceList tablespaces, ListTablespaces(directory));
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(directory));
  if (start.system_identifier != control.system_identifier) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "the server has system identifier {}, {} has {}. HINT: check "
                       "postgres.data_dir and postgres.port of the source",
                       start.system_identifier, directory, control.system_identifier);
  }
  server_watch_.emplace(directory, parts_.clock);
  from_standby_ = start.from_standby;
  walk_options_ = {directory, start.postgres_version / 10000, control.catalog_version};
  walk_options_.tablespaces.emplace();
  for (const auto& [oid, location] : tablespaces) {
    walk_options_.tablespaces->insert(oid);
    if (!location.empty()) plan_.tablespaces[oid] = location;
  }
  METAL_ASSIGN_OR_RETURN(plan_.session, NewRestoreId());
  plan_.start_lsn = start.start_lsn;
  plan_.timeline = start.timeline;
  METAL_ASSIGN_OR_RETURN(const auto bytes, CountCloneBytes(walk_options_));
  for (const auto& [oid, amount] : bytes) plan_.bytes += amount;
  return absl::OkStatus();
}

absl::Status CloneSession::MakeEncoders() {
  METAL_ASSIGN_OR_RETURN(const stream::CodecKind codec, stream::ParseCodec(request_.codec));
  const bool plain = codec == stream::CodecKind::kNone;
  for (CodecState& state : states_) {
    METAL_ASSIGN_OR_RETURN(state.encoder, stream::MakeEncoder(codec, plain ? 0 : 1));
  }
  encoded_size_ = plain ? 0 : EncodedFrameSize();
  return absl::OkStatus();
}

// Before the backup is open: it may take as long as another operation.
absl::Status CloneSession::TakeMemory(const std::function<bool()>& cancelled) {
  const auto depth = static_cast<size_t>(std::max(parts_.config.backup_queue_depth, 1));
  const size_t frame = store::kFrameRawMax + encoded_size_;
  const size_t wanted = depth * kReadSize / store::kFrameRawMax + kFramesBeside;
  base::ByteCount bytes = parts_.config.backup_memory;
  if (parts_.memory != nullptr) {
    METAL_ASSIGN_OR_RETURN(
        share_, parts_.memory->Take({wanted * frame}, {kFramesMin * frame}, [&]() -> absl::Status {
          return cancelled && cancelled() ? absl::CancelledError("the target has left")
                                          : absl::OkStatus();
        }));
    bytes = share_.bytes();
  }
  frames_ = std::max(std::min<size_t>(wanted, bytes.value / frame), kFramesMin);
  return absl::OkStatus();
}

void CloneSession::MakeFrames(std::vector<FrameJob*>& free_jobs) {
  memory_ = uring::AlignedBuffer(frames_ * (store::kFrameRawMax + encoded_size_));
  const auto memory = memory_.span();
  for (size_t i = 0; i < frames_; ++i) {
    jobs_.push_back(std::make_unique<FrameJob>(
        memory.subspan(i * store::kFrameRawMax, store::kFrameRawMax),
        memory.subspan(frames_ * store::kFrameRawMax + i * encoded_size_, encoded_size_), states_,
        rechecker_.get()));
    free_jobs.push_back(jobs_.back().get());
  }
}

absl::Status CloneSession::MakeReader(const SourceStart& start) {
  const base::AgentConfig& config = parts_.config;
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(config.pg_data_dir));
  PageRechecker::Options recheck;
  recheck.start_lsn = start.start_lsn;
  recheck.current_lsn = [this] { return source_->CurrentLsn(); };
  recheck.read = MakePageReader(config.pg_data_dir);
  rechecker_ = std::make_unique<PageRechecker>(std::move(recheck), parts_.clock);
  METAL_ASSIGN_OR_RETURN(const uring::EngineKind kind, uring::ParseEngineKind(config.io_engine));
  const auto depth = static_cast<uint32_t>(std::max(config.backup_queue_depth, 1));
  METAL_ASSIGN_OR_RETURN(uring::EngineChoice choice,
                         parts_.make_engine(kind, std::max<uint32_t>(depth, 32)));
  engine_ = std::move(choice.engine);

  std::vector<FrameJob*> free_jobs;
  MakeFrames(free_jobs);
  FrameReader::Options options;
  options.data_directory = config.pg_data_dir;
  options.page_size = control.block_size;
  options.segment_blocks = control.segment_blocks;
  options.check_pages = control.checksum_version != 0 && control.block_size == stream::kPageSize;
  reader_ = std::make_unique<FrameReader>(std::move(options), std::move(free_jobs), *recorder_);
  return absl::OkStatus();
}

absl::Duration CloneSession::ended_for() const {
  if (!ended_) return absl::ZeroDuration();
  return parts_.clock.Monotonic().since_start - absl::Nanoseconds(ended_at_ns_.load());
}

// ---- the ring thread

void CloneSession::Run() {
  const base::MonotonicTime begin = parts_.clock.Monotonic();
  const absl::Status status = Copy();
  if (!status.ok()) sender_.Fail(status);
  source_.reset();  // ends the backup mode
  if (status.ok()) {
    const absl::Duration took = parts_.clock.Monotonic() - begin;
    Emit(observe::Severity::kInfo, "clone.served",
         fmt::format("{} in {} files, {:.0f} MB/s", base::ByteCount{bytes_}.ToString(),
                     recorder_->files,
                     static_cast<double>(bytes_) / absl::ToDoubleSeconds(took) / 1e6));
  } else {
    Emit(observe::Severity::kWarning, "clone.source_failed", std::string(status.message()));
  }
  // The session is kept for a while to tell its end; its memory is not.
  sender_.AwaitAlone();
  {
    base::MutexLock lock(wake_mutex_);
    engine_.reset();  // waits for reads under way, before their buffers go
  }
  reader_.reset();
  jobs_.clear();
  memory_ = uring::AlignedBuffer();
  share_ = MemoryShare();
  ended_at_ns_ = absl::ToInt64Nanoseconds(parts_.clock.Monotonic().since_start);
  ended_ = true;
}

absl::Status CloneSession::Copy() {
  DirectoryWalk walk(walk_options_);
  reader_->Begin(walk);
  METAL_RETURN_IF_ERROR(Drain());
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.source_copied"));
  METAL_RETURN_IF_ERROR(SendEnd());
  METAL_RETURN_IF_ERROR(Drain());
  sender_.Finish();
  return absl::OkStatus();
}

absl::Status CloneSession::SendEnd() {
  METAL_ASSIGN_OR_RETURN(const ControlCopy control,
                         CopyControl(parts_.config.pg_data_dir, parts_.clock));
  METAL_ASSIGN_OR_RETURN(const SourceStop stop, source_->Stop());
  if (stop.timeline != plan_.timeline) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "the timeline changed from {} to {} during the clone. HINT: clone again",
                       plan_.timeline, stop.timeline);
  }
  CloneEnd end;
  end.control = control.bytes;
  end.backup_label = stop.backup_label;
  end.tablespace_map = stop.tablespace_map;
  end.timeline = stop.timeline;
  end.stop_lsn = stop.stop_lsn;
  if (from_standby_) end.stop_lsn = std::max(end.stop_lsn, control.control.min_recovery);
  end.files = recorder_->files;
  end.bytes = bytes_;
  auto message = std::make_unique<CloneOutgoing>();
  message->type = CloneMessage::kEnd;
  message->body = Encode(end);
  if (message->body.size() > transfer::kBodyMax) {
    return absl::FailedPreconditionError("the tablespace map is too long");
  }
  sender_.Submit(std::move(message));
  return absl::OkStatus();
}

absl::Status CloneSession::CloseAcknowledged() {
  acknowledged_.clear();
  sender_.TakeAcknowledged(acknowledged_);
  for (const CloneOutgoingPtr& message : acknowledged_) {
    if (message->job == nullptr) continue;
    METAL_ASSIGN_OR_RETURN(const uint64_t bytes, reader_->Close(*message->job, {}));
    bytes_ += bytes;
  }
  return absl::OkStatus();
}

// What the target must know of each piece; checksums come once the frame was checked.
void CloneSession::SubmitReady() {
  while (FrameJob* job = reader_->TakeReady()) {
    auto message = std::make_unique<CloneOutgoing>();
    message->type = CloneMessage::kData;
    message->job = job;
    for (const FramePiece& piece : job->pieces) {
      if (piece.got == 0) continue;
      const FileEntry& entry = piece.file->entry;
      const bool whole = piece.file_offset == 0 && piece.wanted < kBundleBelow;
      const uint64_t end = piece.file_offset + piece.got;
      message->data.pieces.push_back({.path = entry.path,
                                      .size = whole ? end : std::max(entry.size, end),
                                      .mtime = entry.mtime,
                                      .mode = entry.mode,
                                      .file_offset = piece.file_offset,
                                      .frame_offset = piece.frame_offset,
                                      .length = piece.got,
                                      .crc32c = 0,
                                      .whole = whole,
                                      .checked = piece.file->check_pages,
                                      .first_block = FirstBlock(piece),
                                      .unsettled = {}});
    }
    sender_.Submit(std::move(message));
  }
}

void CloneSession::FlushRecords() {
  std::string_view lines = recorder_->lines;
  while (!lines.empty()) {
    // Whole lines: one is at most a few KiB long.
    const size_t cut =
        lines.size() <= kRecordsFlush ? lines.size() : lines.rfind('\n', kRecordsFlush) + 1;
    auto message = std::make_unique<CloneOutgoing>();
    message->type = CloneMessage::kRecords;
    message->body = lines.substr(0, cut);
    lines.remove_prefix(cut);
    sender_.Submit(std::move(message));
  }
  recorder_->lines.clear();
}

void CloneSession::StartReads() {
  const uint64_t bytes_max =
      static_cast<uint64_t>(std::max(parts_.config.backup_queue_depth, 1)) * kReadSize;
  while (engine_->in_flight() < engine_->depth() && read_bytes_in_flight_ < bytes_max) {
    FrameRead* read = reader_->TakeRead();
    if (read == nullptr) break;
    read_bytes_in_flight_ += read->request.length;
    engine_->Submit(&read->request);
  }
}

absl::Status CloneSession::Wait(absl::Duration timeout) {
  done_.clear();
  if (timeout > absl::ZeroDuration() && !sender_.PrepareToSleep()) timeout = absl::ZeroDuration();
  METAL_RETURN_IF_ERROR(engine_->Reap(done_, timeout));
  for (uring::IoRequest* request : done_) {
    read_bytes_in_flight_ -= request->length;
    METAL_RETURN_IF_ERROR(reader_->Complete(*static_cast<FrameRead*>(request->context)));
  }
  return absl::OkStatus();
}

absl::Status CloneSession::FillFrames(bool& more) {
  more = true;
  for (size_t i = 0; i < kFillsPerTurn && more; ++i) {
    if (reader_->waiting_reads() >= kWaitingReadsMax || sender_.outstanding() >= kOutstandingMax) {
      more = false;
    } else {
      METAL_ASSIGN_OR_RETURN(more, reader_->FillOne());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> CloneSession::Turn() {
  METAL_RETURN_IF_ERROR(sender_.Check());
  METAL_RETURN_IF_ERROR(server_watch_->Check());
  METAL_RETURN_IF_ERROR(CloseAcknowledged());
  bool more = false;
  METAL_RETURN_IF_ERROR(FillFrames(more));
  SubmitReady();
  if (recorder_->lines.size() >= kRecordsFlush || reader_->idle()) FlushRecords();
  StartReads();
  if (engine_->in_flight() == 0 && sender_.outstanding() == 0 && !more) return false;
  METAL_RETURN_IF_ERROR(Wait(more ? absl::ZeroDuration() : kPoll));
  return true;
}

absl::Status CloneSession::Drain() {
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool more, Turn());
    if (!more) break;
  }
  METAL_CHECK(reader_->idle() && recorder_->lines.empty());
  return absl::OkStatus();
}

}  // namespace metal::backup
