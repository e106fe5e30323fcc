#include "agent/backup/copy_pipeline.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/base/check.h"
#include "agent/base/crc32c.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr uint32_t kAlign = uring::kDirectIoAlignment;
constexpr absl::Duration kPollCancel = absl::Milliseconds(100);
constexpr uint32_t kStallsMax = 8;     // short reads that do not reach the next block
constexpr size_t kFillsPerTurn = 256;   // entries looked at before completions are served again
constexpr size_t kWaitingReadsMax = 8;  // reads prepared ahead of what the engine may take

uint32_t RoundUp(uint32_t n) { return (n + kAlign - 1) & ~(kAlign - 1); }

size_t EncodedSize() { return RoundUp(static_cast<uint32_t>(stream::EncodedBound(store::kFrameRawMax))); }

// Enough frames to keep the reads going while each codec thread has one in work and one waiting; less when memory is short.
size_t JobCount(const CopyOptions& options) {
  const size_t wanted = options.queue_depth * kReadSize / store::kFrameRawMax + 3 * options.threads + 2;
  const size_t staging = options.packs.buffer_count * options.packs.buffer_size;
  const size_t each = store::kFrameRawMax + EncodedSize();
  const size_t memory = static_cast<size_t>(options.memory.value);
  const size_t affordable = memory > staging ? (memory - staging) / each : 0;
  return std::max<size_t>(std::min(wanted, affordable), 3);
}

}  // namespace

// Trims and fsyncs a full pack beside the copy.
struct CopyPipeline::FinishPackJob final : public WorkItem {
  explicit FinishPackJob(store::PackFile* p) : pack(p) {}
  void Run(size_t) override { status = store::FinishPack(*pack); }
  store::PackFile* pack;
  absl::Status status;
};

uint32_t CopyEngineDepth(const CopyOptions& options) {
  return std::max<uint32_t>(options.queue_depth, 32) +
         static_cast<uint32_t>(options.packs.buffer_count);
}

absl::StatusOr<std::unique_ptr<CopyPipeline>> CopyPipeline::Create(
    CopyOptions options, std::unique_ptr<uring::IoEngine> engine, PageRechecker* rechecker,
    FileListWriter& list, observe::Progress& progress) {
  METAL_CHECK(!options.check_pages || (rechecker != nullptr && options.page_size == stream::kPageSize));
  std::unique_ptr<CopyPipeline> pipeline(
      new CopyPipeline(std::move(options), std::move(engine), rechecker, list, progress));
  for (CodecState& state : pipeline->codec_states_) {
    METAL_ASSIGN_OR_RETURN(state.encoder, stream::MakeEncoder(pipeline->options_.codec,
                                                              pipeline->options_.level));
  }
  uring::IoEngine* const raw_engine = pipeline->engine_.get();
  pipeline->workers_ = std::make_unique<WorkerPool>(pipeline->codec_states_.size(),
                                                    [raw_engine] { raw_engine->Wake(); });
  return pipeline;
}

CopyPipeline::CopyPipeline(CopyOptions options, std::unique_ptr<uring::IoEngine> engine,
                           PageRechecker* rechecker, FileListWriter& list,
                           observe::Progress& progress)
    : options_(std::move(options)),
      list_(list),
      progress_(progress),
      memory_(JobCount(options_) * (store::kFrameRawMax + EncodedSize())),
      codec_states_(std::max<size_t>(options_.threads, 1)),
      packs_(options_.packs),
      engine_(std::move(engine)) {
  const size_t count = JobCount(options_);
  for (size_t i = 0; i < count; ++i) {
    // Raw buffers first: each is then aligned to its own size within huge pages.
    const auto raw = memory_.span().subspan(i * store::kFrameRawMax, store::kFrameRawMax);
    const auto encoded = memory_.span().subspan(
        count * store::kFrameRawMax + i * EncodedSize(), EncodedSize());
    jobs_.push_back(std::make_unique<FrameJob>(raw, encoded, codec_states_, rechecker));
    free_jobs_.push_back(jobs_.back().get());
  }
}

CopyPipeline::~CopyPipeline() {
  workers_.reset();
  engine_.reset();
}

// ---- filling frames

FrameJob* CopyPipeline::TakeJob() {
  if (free_jobs_.empty()) return nullptr;
  FrameJob* job = free_jobs_.back();
  free_jobs_.pop_back();
  job->Reset();
  return job;
}

SourceFile* CopyPipeline::NewFile() {
  if (free_files_.empty()) {
    files_.emplace_back();
    return &files_.back();
  }
  SourceFile* file = free_files_.back();
  free_files_.pop_back();
  file->direct = file->check_pages = file->all_issued = file->shrunk = false;
  file->page_size = 0;
  file->first_block = 0;
  file->issued = 0;
  file->reads_open = file->frames_open = 0;
  file->extents.clear();
  file->crcs.clear();
  return file;
}

absl::Status CopyPipeline::OpenFile(const WalkEntry& entry) {
  constexpr int kFlags = O_RDONLY | O_CLOEXEC;
  bool direct = true;
  int fd = openat(entry.directory_fd, entry.name, kFlags | O_DIRECT);
  if (fd < 0 && errno == EINVAL) {
    direct = false;
    fd = openat(entry.directory_fd, entry.name, kFlags);
  }
  if (fd < 0 && errno == ENOENT) {
    ++totals_.vanished_files;
    return absl::OkStatus();
  }
  const std::string full = base::JoinPath(options_.data_directory, entry.path);
  if (fd < 0) return base::ErrnoStatus(errno, "open", full);
  SourceFile& file = *NewFile();
  file.fd = base::UniqueFd(fd);
  file.direct = direct;
  struct stat status {};
  if (fstat(fd, &status) != 0) return base::ErrnoStatus(errno, "stat", full);
  file.entry.path = entry.path;
  file.entry.mode = status.st_mode & 07777;
  file.entry.mtime = status.st_mtime;
  file.entry.size = static_cast<uint64_t>(status.st_size);
  if (entry.relation) {
    // A relation's unfinished last page is being written now; WAL replay gives it.
    file.page_size = options_.page_size;
    file.entry.size = file.entry.size / options_.page_size * options_.page_size;
    file.check_pages = options_.check_pages;
    file.first_block = entry.segment * options_.segment_blocks;
  }
  const uint64_t frames = (file.entry.size + store::kFrameRawMax - 1) / store::kFrameRawMax;
  file.extents.resize(frames);
  file.crcs.resize(frames);
  if (file.entry.size == 0) {
    file.all_issued = true;
    return EmitFile(file);
  }
  (file.entry.size < kBundleBelow ? small_ : large_) = &file;
  return absl::OkStatus();
}

// Takes the next entry of the walk; false at its end.
absl::StatusOr<bool> CopyPipeline::NextFile() {
  METAL_RETURN_IF_ERROR(walk_->Next(walk_entry_));
  switch (walk_entry_.kind) {
    case WalkKind::kDirectory:
      METAL_RETURN_IF_ERROR(list_.AddDirectory(walk_entry_.path, walk_entry_.mode));
      return true;
    case WalkKind::kTablespace:
      METAL_RETURN_IF_ERROR(list_.AddTablespace(walk_entry_.oid, walk_entry_.location));
      return true;
    case WalkKind::kFile:
      METAL_RETURN_IF_ERROR(OpenFile(walk_entry_));
      return true;
    case WalkKind::kEnd:
      break;
  }
  walk_ended_ = true;
  SealBundle();
  return false;
}

void CopyPipeline::AddPiece(FrameJob& job, SourceFile& file, uint64_t offset, uint32_t length) {
  FramePiece piece;
  piece.file = &file;
  piece.file_offset = offset;
  piece.frame_offset = job.fill;
  piece.wanted = piece.got = length;
  piece.extent = static_cast<uint32_t>(offset / store::kFrameRawMax);
  job.pieces.push_back(piece);
  job.fill = RoundUp(job.fill + length);
  file.issued += length;
  file.all_issued = file.issued == file.entry.size;
  ++file.frames_open;
}

void CopyPipeline::AddReads(FrameJob& job, uint32_t index) {
  const FramePiece& piece = job.pieces[index];
  const uint32_t total = RoundUp(piece.wanted);
  for (uint32_t at = 0; at < total; at += kReadSize) {
    METAL_CHECK(job.reads.size() < FrameJob::kReadsMax);
    FrameRead& read = job.reads.emplace_back();
    read.job = &job;
    read.piece = index;
    read.request.op = uring::IoOp::kRead;
    read.request.fd = piece.file->fd.get();
    read.request.buffer = job.raw.data() + piece.frame_offset + at;
    read.request.length = std::min(kReadSize, total - at);
    read.request.offset = piece.file_offset + at;
    read.request.context = &read;
    ++job.reads_open;
    ++piece.file->reads_open;
    waiting_reads_.push_back(&read);
  }
}

bool CopyPipeline::FillLarge() {
  FrameJob* job = TakeJob();
  if (job == nullptr) return false;
  SourceFile& file = *large_;
  const uint64_t left = file.entry.size - file.issued;
  AddPiece(*job, file, file.issued,
           static_cast<uint32_t>(std::min<uint64_t>(left, store::kFrameRawMax)));
  if (file.all_issued) large_ = nullptr;
  job->filled = true;
  AddReads(*job, 0);
  return true;
}

bool CopyPipeline::FillBundle() {
  const auto length = static_cast<uint32_t>(small_->entry.size);
  if (bundle_ != nullptr && (bundle_->fill + RoundUp(length) > store::kFrameRawMax ||
                             bundle_->pieces.size() == FrameJob::kPiecesMax)) {
    SealBundle();
  }
  if (bundle_ == nullptr) bundle_ = TakeJob();
  if (bundle_ == nullptr) return false;
  AddPiece(*bundle_, *small_, 0, length);
  small_ = nullptr;
  AddReads(*bundle_, static_cast<uint32_t>(bundle_->pieces.size() - 1));
  return true;
}

void CopyPipeline::SealBundle() {
  if (bundle_ == nullptr) return;
  FrameJob* job = bundle_;
  bundle_ = nullptr;
  job->filled = true;
  DispatchWhenReady(*job);
}

// Prepares reads for one more frame, or looks at one more entry; false when it must wait for a free frame or all is issued.
absl::StatusOr<bool> CopyPipeline::FillOne() {
  if (large_ != nullptr) return FillLarge();
  if (small_ != nullptr) return FillBundle();
  if (walk_ended_) return false;
  return NextFile();
}

// ---- reads

void CopyPipeline::StartRequests() {
  while (engine_->in_flight() < engine_->depth()) {
    uring::IoRequest* write = packs_.NextWrite();
    if (write == nullptr) break;
    engine_->Submit(write);
  }
  const uint64_t bytes_max = uint64_t{options_.queue_depth} * kReadSize;
  const uint32_t reads_max = engine_->depth() - static_cast<uint32_t>(options_.packs.buffer_count);
  while (!waiting_reads_.empty() && engine_->in_flight() < reads_max &&
         read_bytes_in_flight_ < bytes_max) {
    FrameRead* read = waiting_reads_.front();
    waiting_reads_.pop_front();
    read_bytes_in_flight_ += read->request.length;
    engine_->Submit(&read->request);
  }
}

absl::Status CopyPipeline::CompleteRead(FrameRead& read) {
  FrameJob& job = *read.job;
  FramePiece& piece = job.pieces[read.piece];
  SourceFile& file = *piece.file;
  uring::IoRequest& request = read.request;
  read_bytes_in_flight_ -= request.length;
  if (request.result == -EINVAL && !read.fell_back) {
    // This filesystem takes O_DIRECT at open and refuses it here: read this file through the page cache.
    const int flags = fcntl(file.fd.get(), F_GETFL);
    if (flags < 0 || fcntl(file.fd.get(), F_SETFL, flags & ~O_DIRECT) != 0) {
      return base::ErrnoStatus(errno, "switch off O_DIRECT for", file.entry.path);
    }
    file.direct = false;
    read.fell_back = true;
    waiting_reads_.push_back(&read);
    return absl::OkStatus();
  }
  if (request.result < 0) {
    return base::ErrnoStatus(
        -request.result, "read",
        fmt::format("{} block {}", base::JoinPath(options_.data_directory, file.entry.path),
                    request.offset / options_.page_size));
  }
  const uint64_t start = request.offset - piece.file_offset;  // in the piece
  const auto got = static_cast<uint32_t>(request.result);
  const auto needed = static_cast<uint32_t>(
      std::min<uint64_t>(request.length, piece.wanted > start ? piece.wanted - start : 0));
  if (got < needed) {
    struct stat status {};
    if (fstat(file.fd.get(), &status) != 0) return base::ErrnoStatus(errno, "stat", file.entry.path);
    if (static_cast<uint64_t>(status.st_size) > request.offset + got) {
      // Short for another reason than the end of the file: goes on from the last whole block.
      const uint32_t step = got & ~(kAlign - 1);
      if (step == 0 && ++read.stalls > kStallsMax) {
        return base::ErrnoStatus(EIO, "read", base::JoinPath(options_.data_directory, file.entry.path));
      }
      request.buffer += step;
      request.offset += step;
      request.length -= step;
      waiting_reads_.push_back(&read);
      return absl::OkStatus();
    }
    // The file was truncated: it ends here.
    piece.got = std::min(piece.got, static_cast<uint32_t>(start) + got);
  }
  if (--file.reads_open == 0 && file.all_issued) file.fd.Reset();
  --job.reads_open;
  DispatchWhenReady(job);
  return absl::OkStatus();
}

void CopyPipeline::DispatchWhenReady(FrameJob& job) {
  if (!job.filled || job.reads_open > 0) return;
  for (FramePiece& piece : job.pieces) {
    SourceFile& file = *piece.file;
    if (piece.got == piece.wanted) continue;
    if (file.page_size != 0) piece.got = piece.got / file.page_size * file.page_size;
    file.entry.size = std::min(file.entry.size, piece.file_offset + piece.got);
    file.shrunk = file.all_issued = true;
    if (large_ == &file) large_ = nullptr;
  }
  workers_->Submit(&job);
}

// ---- encoded frames

absl::Status CopyPipeline::EmitFile(SourceFile& file) {
  uint64_t covered = 0;
  uint32_t crc = 0;
  size_t count = 0;
  while (covered < file.entry.size) {
    const Extent& extent = file.extents[count];
    METAL_CHECK(extent.length > 0 && extent.file_offset == covered);
    crc = base::Crc32cCombine(crc, file.crcs[count], extent.length);
    covered += extent.length;
    ++count;
  }
  METAL_CHECK(covered == file.entry.size);
  file.entry.crc32c = crc;
  if (file.shrunk) ++totals_.shrunk_files;
  METAL_RETURN_IF_ERROR(list_.AddFile(file.entry, std::span(file.extents).first(count)));
  file.fd.Reset();
  free_files_.push_back(&file);
  return absl::OkStatus();
}

absl::Status CopyPipeline::CloseFrameOf(SourceFile& file) {
  if (--file.frames_open > 0 || !file.all_issued) return absl::OkStatus();
  return EmitFile(file);
}

absl::Status CopyPipeline::FinishFrame(FrameJob& job) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.frame"));
  store::PackWriter::Place place;
  if (job.raw_length > 0) {
    METAL_ASSIGN_OR_RETURN(place, packs_.Append(job.header(), job.payload()));
    ++totals_.frames;
  }
  uint64_t bytes = 0;
  for (const FramePiece& piece : job.pieces) {
    Extent& extent = piece.file->extents[piece.extent];
    extent.file_offset = piece.file_offset;
    extent.length = piece.got;
    extent.pack = place.pack;
    extent.pack_offset = place.offset;
    extent.stored_length = static_cast<uint32_t>(job.header().size() + job.payload().size());
    extent.raw_length = job.raw_length;
    extent.frame_offset = piece.frame_offset;
    piece.file->crcs[piece.extent] = piece.crc32c;
    bytes += piece.wanted;
    METAL_RETURN_IF_ERROR(CloseFrameOf(*piece.file));
  }
  totals_.pages_in_window += job.pages_in_window;
  totals_.corrupt_page_count += job.corrupt_pages.size();
  for (CorruptPage& page : job.corrupt_pages) {
    if (totals_.corrupt_pages.size() == kCorruptPagesKept) break;
    totals_.corrupt_pages.push_back(std::move(page));
  }
  progress_.AddDone(bytes);
  free_jobs_.push_back(&job);
  return absl::OkStatus();
}

absl::Status CopyPipeline::TakeFinished() {
  finished_.clear();
  workers_->TakeFinished(finished_);
  for (WorkItem* item : finished_) {
    if (auto* job = dynamic_cast<FrameJob*>(item)) {
      METAL_RETURN_IF_ERROR(job->status);
      encoded_.push_back(job);
    } else {
      METAL_RETURN_IF_ERROR(static_cast<FinishPackJob*>(item)->status);
    }
  }
  return absl::OkStatus();
}

absl::Status CopyPipeline::AppendEncoded() {
  while (!encoded_.empty()) {
    FrameJob& job = *encoded_.front();
    if (job.raw_length > 0 && !packs_.CanAppend(job.header().size() + job.payload().size())) break;
    encoded_.pop_front();
    METAL_RETURN_IF_ERROR(FinishFrame(job));
  }
  while (store::PackFile* pack = packs_.TakeWritten()) {
    finish_jobs_.push_back(std::make_unique<FinishPackJob>(pack));
    workers_->Submit(finish_jobs_.back().get());
  }
  return absl::OkStatus();
}

// ---- the loop

absl::Status CopyPipeline::Wait(absl::Duration timeout) {
  done_.clear();
  if (timeout > absl::ZeroDuration() && !workers_->PrepareToSleep()) timeout = absl::ZeroDuration();
  METAL_RETURN_IF_ERROR(engine_->Reap(done_, timeout));
  for (uring::IoRequest* request : done_) {
    METAL_RETURN_IF_ERROR(request->op == uring::IoOp::kWrite
                              ? packs_.Complete(request)
                              : CompleteRead(*static_cast<FrameRead*>(request->context)));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> CopyPipeline::Turn() {
  METAL_RETURN_IF_ERROR(progress_.CheckCancelled());
  METAL_RETURN_IF_ERROR(TakeFinished());
  METAL_RETURN_IF_ERROR(AppendEncoded());
  bool more_to_fill = true;
  for (size_t i = 0; i < kFillsPerTurn && more_to_fill; ++i) {
    if (waiting_reads_.size() >= kWaitingReadsMax) {
      more_to_fill = false;
    } else {
      METAL_ASSIGN_OR_RETURN(more_to_fill, FillOne());
    }
  }
  StartRequests();
  const bool idle = engine_->in_flight() == 0 && workers_->outstanding() == 0 && encoded_.empty();
  if (idle && !more_to_fill) return false;
  METAL_RETURN_IF_ERROR(Wait(more_to_fill ? absl::ZeroDuration() : kPollCancel));
  return true;
}

absl::Status CopyPipeline::Drain() {
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool more, Turn());
    if (!more) break;
  }
  METAL_CHECK(large_ == nullptr && small_ == nullptr && bundle_ == nullptr && waiting_reads_.empty());
  return absl::OkStatus();
}

absl::Status CopyPipeline::CopyTree(DirectoryWalk& walk) {
  walk_ = &walk;
  walk_ended_ = false;
  return Drain();
}

absl::Status CopyPipeline::AddFile(const FileEntry& entry, std::string_view contents) {
  METAL_CHECK(contents.size() <= store::kFrameRawMax);
  SourceFile& file = *NewFile();
  file.entry = entry;
  file.entry.size = contents.size();
  file.extents.resize(contents.empty() ? 0 : 1);
  file.crcs.resize(contents.empty() ? 0 : 1);
  if (contents.empty()) {
    file.all_issued = true;
    return EmitFile(file);
  }
  FrameJob* job = TakeJob();
  METAL_CHECK(job != nullptr);  // every job is free between CopyTree and Finish
  AddPiece(*job, file, 0, static_cast<uint32_t>(contents.size()));
  std::memcpy(job->raw.data(), contents.data(), contents.size());
  job->filled = true;
  DispatchWhenReady(*job);
  return Drain();
}

absl::Status CopyPipeline::Finish() {
  packs_.Seal();
  return Drain();
}

}  // namespace metal::backup
