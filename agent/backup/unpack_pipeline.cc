#include "agent/backup/unpack_pipeline.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "agent/backup/frame_reader.h"
#include "agent/base/check.h"
#include "agent/base/crc32c.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/store/frame.h"

namespace metal::backup {
namespace {

constexpr uint32_t kAlign = uring::kDirectIoAlignment;
constexpr absl::Duration kPollCancel = absl::Milliseconds(100);
constexpr uint32_t kStallsMax = 8;  // short transfers that do not reach the next block
constexpr size_t kRecordsPerTurn = 256;
constexpr size_t kOpenPacksMax = 4;
// A frame at any offset, read in whole blocks.
constexpr size_t kEncodedSize =
    (store::kFrameHeaderSize + store::kFrameStoredMax + 3 * kAlign - 1) / kAlign * kAlign;

constexpr size_t kJobsLeast = 2;
constexpr size_t kJobBytes = store::kFrameRawMax + kEncodedSize;

uint64_t RoundUp(uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

size_t JobCount(const UnpackOptions& options) {
  const size_t wanted = options.queue_depth + 3 * options.threads;
  const size_t affordable = static_cast<size_t>(options.memory.value) / kJobBytes;
  return std::max<size_t>(std::min(wanted, affordable), kJobsLeast);
}

absl::Status Lost(std::string text) {
  return base::WithReason(absl::DataLossError(std::move(text)), {"REPOSITORY", {}});
}

}  // namespace

uint32_t UnpackEngineDepth(const UnpackOptions& options) {
  return std::max<uint32_t>(2 * options.queue_depth, 32);
}

base::ByteCount UnpackMemory(const UnpackOptions& options) {
  return {JobCount(options) * kJobBytes};
}

base::ByteCount UnpackMemoryLeast() { return {kJobsLeast * kJobBytes}; }

absl::StatusOr<std::unique_ptr<UnpackPipeline>> UnpackPipeline::Create(
    UnpackOptions options, std::unique_ptr<uring::IoEngine> engine, observe::Progress& progress,
    MemoryShare share) {
  std::unique_ptr<UnpackPipeline> pipeline(
      new UnpackPipeline(std::move(options), std::move(engine), progress));
  METAL_ASSIGN_OR_RETURN(TargetWriter target,
                         TargetWriter::Create(pipeline->options_.target_directory));
  pipeline->target_ = std::move(target);
  pipeline->share_ = std::move(share);
  for (size_t i = 0; i < std::max<size_t>(pipeline->options_.threads, 1); ++i) {
    pipeline->decoders_.push_back(stream::MakeDecoder());
  }
  const size_t count = JobCount(pipeline->options_);
  const auto memory = pipeline->memory_.span();
  for (size_t i = 0; i < count; ++i) {
    const auto raw = memory.subspan(i * store::kFrameRawMax, store::kFrameRawMax);
    const auto encoded =
        memory.subspan(count * store::kFrameRawMax + i * kEncodedSize, kEncodedSize);
    pipeline->jobs_.push_back(std::make_unique<UnpackJob>(raw, encoded, pipeline->decoders_,
                                                          pipeline->target_->directory()));
    pipeline->free_jobs_.push_back(pipeline->jobs_.back().get());
  }
  uring::IoEngine* const raw_engine = pipeline->engine_.get();
  pipeline->workers_ = std::make_unique<WorkerPool>(pipeline->decoders_.size(),
                                                    [raw_engine] { raw_engine->Wake(); });
  return pipeline;
}

UnpackPipeline::UnpackPipeline(UnpackOptions options, std::unique_ptr<uring::IoEngine> engine,
                               observe::Progress& progress)
    : options_(std::move(options)),
      progress_(progress),
      memory_(JobCount(options_) * kJobBytes),
      engine_(std::move(engine)) {}

UnpackPipeline::~UnpackPipeline() {
  workers_.reset();
  engine_.reset();
}

// ---- damage

absl::Status UnpackPipeline::Damage(TargetFile& file, const std::string& what) {
  if (!file.damaged) ++totals_.damaged_files;
  file.damaged = true;
  if (totals_.first_damage.empty()) totals_.first_damage = what;
  if (!restoring()) return absl::OkStatus();
  return Lost(
      fmt::format("{}. HINT: restore another backup; metalctl backup verify shows the extent "
                  "of the damage",
                  what));
}

absl::Status UnpackPipeline::FrameDamage(const UnpackJob& job, const absl::Status& why) {
  ++totals_.damaged_frames;
  for (const UnpackPiece& piece : job.pieces) {
    METAL_RETURN_IF_ERROR(Damage(
        *piece.file, fmt::format("{} of {}: frame at offset {} of pack {}: {}",
                                 piece.file->entry.path, piece.file_offset, job.frame.pack_offset,
                                 options_.packs[job.frame.pack].path, std::string(why.message()))));
  }
  return absl::OkStatus();
}

// ---- the file list

TargetFile* UnpackPipeline::NewFile() {
  if (free_files_.empty()) {
    files_.emplace_back();
    return &files_.back();
  }
  TargetFile* file = free_files_.back();
  free_files_.pop_back();
  file->direct = file->padded = file->small = file->capture = false;
  file->damaged = file->all_issued = false;
  file->pieces_open = 0;
  file->crcs.clear();
  file->lengths.clear();
  return file;
}

absl::Status UnpackPipeline::BeginFile() {
  if (current_ != nullptr) {
    current_->all_issued = true;
    if (current_->pieces_open == 0) METAL_RETURN_IF_ERROR(FinishFile(*current_));
    current_ = nullptr;
  }
  if (record_.kind != RecordKind::kFile) return absl::OkStatus();
  current_ = NewFile();
  current_->entry = record_.file;
  current_->capture = options_.captured && options_.captured(record_.file.path);
  if (restoring() && record_.file.size == 0 && !current_->capture) return target_->Open(*current_);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<OpenPack>> UnpackPipeline::PackOf(uint32_t index) {
  for (size_t i = 0; i < open_packs_.size(); ++i) {
    if (open_pack_indexes_[i] == index) return open_packs_[i];
  }
  auto pack = std::make_shared<OpenPack>();
  pack->path = base::JoinPath(options_.packs_directory, options_.packs[index].path);
  auto fd = base::OpenFile(pack->path, O_RDONLY | O_DIRECT);
  if (absl::IsInvalidArgument(fd.status())) {
    fd = base::OpenFile(pack->path, O_RDONLY);
  }
  if (absl::IsNotFound(fd.status())) return Lost(fmt::format("pack {} is missing", pack->path));
  if (!fd.ok()) return fd.status();
  pack->fd = *std::move(fd);
  open_packs_.push_front(pack);
  open_pack_indexes_.push_front(index);
  if (open_packs_.size() > kOpenPacksMax) {
    open_packs_.pop_back();
    open_pack_indexes_.pop_back();
  }
  return pack;
}

// Adds the extent in record_ to the frame that is being gathered, or begins another one. Leaves
// record_waits_ set when no frame buffer is free.
absl::Status UnpackPipeline::TakeExtent() {
  const Extent& extent = record_.extent;
  TargetFile& file = *current_;
  const bool same_frame = pending_ != nullptr && pending_->frame.pack == extent.pack &&
                          pending_->frame.pack_offset == extent.pack_offset &&
                          pending_->frame.stored_length == extent.stored_length &&
                          pending_->frame.raw_length == extent.raw_length &&
                          pending_->pieces.size() < UnpackJob::kPiecesMax;
  if (!same_frame) METAL_RETURN_IF_ERROR(DispatchPending());
  if (pending_ == nullptr) {
    record_waits_ = free_jobs_.empty();
    if (record_waits_) return absl::OkStatus();
    pending_ = free_jobs_.back();
    free_jobs_.pop_back();
    pending_->Reset();
    pending_->frame = extent;
    METAL_ASSIGN_OR_RETURN(pending_->pack, PackOf(extent.pack));
  }
  if (extent.file_offset == 0) {
    file.small = extent.length == file.entry.size && file.entry.size < kBundleBelow;
    if (file.capture && !file.small) {
      return Lost(fmt::format("file list: {} is {} bytes long", file.entry.path, file.entry.size));
    }
    if (restoring() && !file.small) METAL_RETURN_IF_ERROR(target_->Open(file));
  }
  UnpackPiece& piece = pending_->pieces.emplace_back();
  piece.file = &file;
  piece.job = pending_;
  piece.file_offset = extent.file_offset;
  piece.frame_offset = extent.frame_offset;
  piece.length = extent.length;
  piece.extent = static_cast<uint32_t>(file.crcs.size());
  file.crcs.push_back(0);
  file.lengths.push_back(extent.length);
  ++file.pieces_open;
  record_waits_ = false;
  return absl::OkStatus();
}

absl::Status UnpackPipeline::DispatchPending() {
  if (pending_ == nullptr) return absl::OkStatus();
  UnpackJob* job = pending_;
  pending_ = nullptr;
  return StartReads(*job);
}

// Takes one record; false when it must wait for a free frame buffer or the list has ended.
absl::StatusOr<bool> UnpackPipeline::TakeRecord() {
  if (list_ended_) return false;
  if (!record_waits_) {
    METAL_RETURN_IF_ERROR(list_->Next(record_));
    if (record_.kind != RecordKind::kExtent) METAL_RETURN_IF_ERROR(BeginFile());
  }
  switch (record_.kind) {
    case RecordKind::kDirectory:
    case RecordKind::kTablespace:
      if (options_.on_directory) METAL_RETURN_IF_ERROR(options_.on_directory(record_));
      return true;
    case RecordKind::kFile:
      return true;
    case RecordKind::kExtent:
      METAL_RETURN_IF_ERROR(TakeExtent());
      return !record_waits_;
    case RecordKind::kEnd:
      break;
  }
  list_ended_ = true;
  METAL_RETURN_IF_ERROR(DispatchPending());
  return false;
}

// ---- reads and writes

absl::Status UnpackPipeline::StartReads(UnpackJob& job) {
  const uint64_t base_offset = job.frame.pack_offset / kAlign * kAlign;
  job.skip = static_cast<uint32_t>(job.frame.pack_offset - base_offset);
  job.read_end = job.skip + job.frame.stored_length;
  const auto total = static_cast<uint32_t>(RoundUp(job.read_end));
  METAL_CHECK(total <= job.encoded.size());
  for (uint32_t at = 0; at < total; at += kReadSize) {
    UnpackRead& read = job.reads[job.reads_open++];
    read.job = &job;
    read.fell_back = false;
    read.stalls = 0;
    read.request.op = uring::IoOp::kRead;
    read.request.fd = job.pack->fd.get();
    read.request.buffer = job.encoded.data() + at;
    read.request.length = std::min(kReadSize, total - at);
    read.request.offset = base_offset + at;
    read.request.context = &read;
    waiting_.push_back(&read.request);
  }
  return absl::OkStatus();
}

void UnpackPipeline::StartRequests() {
  while (!waiting_.empty() && engine_->in_flight() < engine_->depth()) {
    engine_->Submit(waiting_.front());
    waiting_.pop_front();
  }
}

absl::Status UnpackPipeline::CompleteRead(UnpackRead& read) {
  UnpackJob& job = *read.job;
  uring::IoRequest& request = read.request;
  if (request.result == -EINVAL && !read.fell_back && ClearDirect(job.pack->fd.get())) {
    read.fell_back = true;
    waiting_.push_back(&request);
    return absl::OkStatus();
  }
  if (request.result < 0) {
    return base::ErrnoStatus(-request.result, "read",
                             fmt::format("{} offset {}", job.pack->path, request.offset));
  }
  const auto got = static_cast<uint32_t>(request.result);
  const auto start = static_cast<uint32_t>(request.buffer - job.encoded.data());
  const uint32_t needed = std::min(request.length, job.read_end > start ? job.read_end - start : 0);
  if (got < needed) {
    const uint32_t step = got & ~(kAlign - 1);
    if (step > 0 || (got > 0 && ++read.stalls <= kStallsMax)) {
      request.buffer += step;
      request.offset += step;
      request.length -= step;
      waiting_.push_back(&request);
      return absl::OkStatus();
    }
    job.read_end = start + got;
  }
  if (--job.reads_open == 0) workers_->Submit(&job);
  return absl::OkStatus();
}

absl::Status UnpackPipeline::CompleteWrite(UnpackPiece& piece) {
  METAL_ASSIGN_OR_RETURN(const bool written, target_->Complete(piece));
  if (!written) {
    waiting_.push_back(&piece.write);
    return absl::OkStatus();
  }
  --piece.job->writes_open;
  METAL_RETURN_IF_ERROR(ClosePiece(piece));
  return CloseJob(*piece.job);
}

// ---- decoded frames

absl::Status UnpackPipeline::HandleDecoded(UnpackJob& job) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("restore.frame"));
  job.pack.reset();
  ++totals_.frames;
  totals_.stored_bytes += job.frame.stored_length;
  if (!job.status.ok()) METAL_RETURN_IF_ERROR(FrameDamage(job, job.status));
  if (!job.write_status.ok()) {
    return WithSpaceReason(base::Annotate(job.write_status, options_.target_directory),
                           options_.target_directory);
  }
  ++job.writes_open;  // keeps the job until its pieces were looked at
  for (UnpackPiece& piece : job.pieces) {
    if (restoring() && !piece.file->small) {
      waiting_.push_back(target_->Write(piece));
      ++job.writes_open;
      continue;
    }
    if (piece.file->capture && !piece.file->damaged && options_.on_captured) {
      const auto bytes = job.raw.subspan(piece.frame_offset, piece.length);
      METAL_RETURN_IF_ERROR(options_.on_captured(
          piece.file->entry,
          std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())));
    }
    METAL_RETURN_IF_ERROR(ClosePiece(piece));
  }
  --job.writes_open;
  return CloseJob(job);
}

absl::Status UnpackPipeline::CloseJob(UnpackJob& job) {
  if (job.writes_open == 0) free_jobs_.push_back(&job);
  return absl::OkStatus();
}

absl::Status UnpackPipeline::ClosePiece(UnpackPiece& piece) {
  TargetFile& file = *piece.file;
  file.crcs[piece.extent] = piece.crc32c;
  progress_.AddDone(piece.length);
  if (--file.pieces_open > 0 || !file.all_issued) return absl::OkStatus();
  return FinishFile(file);
}

absl::Status UnpackPipeline::FinishFile(TargetFile& file) {
  uint32_t crc = 0;
  for (size_t i = 0; i < file.crcs.size(); ++i) {
    crc = base::Crc32cCombine(crc, file.crcs[i], file.lengths[i]);
  }
  if (!file.damaged && crc != file.entry.crc32c) {
    METAL_RETURN_IF_ERROR(Damage(file, fmt::format("{}: CRC-32C is {:08x} and should be {:08x}",
                                                   file.entry.path, crc, file.entry.crc32c)));
  }
  if (file.fd.valid()) METAL_RETURN_IF_ERROR(target_->Close(file));
  ++totals_.files;
  totals_.bytes += file.entry.size;
  if (!file.damaged && options_.on_file) METAL_RETURN_IF_ERROR(options_.on_file(file.entry));
  free_files_.push_back(&file);
  return absl::OkStatus();
}

absl::Status UnpackPipeline::TakeDecoded() {
  finished_.clear();
  workers_->TakeFinished(finished_);
  for (WorkItem* item : finished_) {
    METAL_RETURN_IF_ERROR(HandleDecoded(*static_cast<UnpackJob*>(item)));
  }
  return absl::OkStatus();
}

// ---- the loop

absl::Status UnpackPipeline::Wait(absl::Duration timeout) {
  done_.clear();
  if (timeout > absl::ZeroDuration() && !workers_->PrepareToSleep()) timeout = absl::ZeroDuration();
  METAL_RETURN_IF_ERROR(engine_->Reap(done_, timeout));
  for (uring::IoRequest* request : done_) {
    METAL_RETURN_IF_ERROR(request->op == uring::IoOp::kWrite
                              ? CompleteWrite(*static_cast<UnpackPiece*>(request->context))
                              : CompleteRead(*static_cast<UnpackRead*>(request->context)));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> UnpackPipeline::Turn() {
  METAL_RETURN_IF_ERROR(progress_.CheckCancelled());
  METAL_RETURN_IF_ERROR(TakeDecoded());
  bool more = true;
  for (size_t i = 0; i < kRecordsPerTurn && more; ++i) {
    METAL_ASSIGN_OR_RETURN(more, TakeRecord());
  }
  StartRequests();
  const bool idle = engine_->in_flight() == 0 && workers_->outstanding() == 0;
  if (idle && !more) return false;
  METAL_RETURN_IF_ERROR(Wait(more ? absl::ZeroDuration() : kPollCancel));
  return true;
}

absl::Status UnpackPipeline::Run(FileListReader& list) {
  list_ = &list;
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool more, Turn());
    if (!more) break;
  }
  METAL_CHECK(list_ended_ && pending_ == nullptr && current_ == nullptr && waiting_.empty());
  return absl::OkStatus();
}

}  // namespace metal::backup
