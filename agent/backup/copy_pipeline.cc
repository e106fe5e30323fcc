#include "agent/backup/copy_pipeline.h"

#include <algorithm>

#include "agent/backup/memory_plan.h"
#include "agent/base/check.h"
#include "agent/base/fault_point.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kPollCancel = absl::Milliseconds(100);
constexpr size_t kFillsPerTurn = 256;   // entries looked at before completions are served again
constexpr size_t kWaitingReadsMax = 8;  // reads prepared ahead of what the engine may take

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
  METAL_CHECK(!options.check_pages ||
              (rechecker != nullptr && options.page_size == stream::kPageSize));
  METAL_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(options));
  options.threads = plan.threads;
  options.frames = plan.frames;
  std::unique_ptr<CopyPipeline> pipeline(
      new CopyPipeline(std::move(options), std::move(engine), rechecker, list, progress));
  for (CodecState& state : pipeline->codec_states_) {
    METAL_ASSIGN_OR_RETURN(state.encoder,
                           stream::MakeEncoder(pipeline->options_.codec, pipeline->options_.level));
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
      progress_(progress),
      memory_(options_.frames * (store::kFrameRawMax + EncodedFrameSize())),
      codec_states_(options_.threads),
      jobs_(MakeJobs(rechecker)),
      reader_({options_.data_directory, options_.page_size, options_.segment_blocks,
               options_.check_pages},
              FreeJobs(), list),
      packs_(options_.packs),
      engine_(std::move(engine)) {}

// Raw buffers first: each then lies within huge pages by its own size.
std::vector<std::unique_ptr<FrameJob>> CopyPipeline::MakeJobs(PageRechecker* rechecker) {
  std::vector<std::unique_ptr<FrameJob>> jobs;
  const size_t count = options_.frames;
  const auto memory = memory_.span();
  for (size_t i = 0; i < count; ++i) {
    const auto raw = memory.subspan(i * store::kFrameRawMax, store::kFrameRawMax);
    const auto encoded =
        memory.subspan(count * store::kFrameRawMax + i * EncodedFrameSize(), EncodedFrameSize());
    jobs.push_back(std::make_unique<FrameJob>(raw, encoded, codec_states_, rechecker));
  }
  return jobs;
}

std::vector<FrameJob*> CopyPipeline::FreeJobs() const {
  std::vector<FrameJob*> jobs;
  for (const auto& job : jobs_) jobs.push_back(job.get());
  return jobs;
}

CopyPipeline::~CopyPipeline() {
  workers_.reset();
  engine_.reset();
}

void CopyPipeline::StartRequests() {
  while (engine_->in_flight() < engine_->depth()) {
    uring::IoRequest* write = packs_.NextWrite();
    if (write == nullptr) break;
    engine_->Submit(write);
  }
  StartReads();
}

void CopyPipeline::StartReads() {
  const uint64_t bytes_max = uint64_t{options_.queue_depth} * kReadSize;
  const uint32_t reads_max = engine_->depth() - static_cast<uint32_t>(options_.packs.buffer_count);
  held_back_ = false;
  while (engine_->in_flight() < reads_max && read_bytes_in_flight_ < bytes_max) {
    held_back_ = HoldBack() > absl::ZeroDuration();
    if (held_back_) break;
    FrameRead* read = reader_.TakeRead();
    if (read == nullptr) break;
    read_bytes_in_flight_ += read->request.length;
    engine_->Submit(&read->request);
    booked_bytes_ -= std::min<uint64_t>(booked_bytes_, read->request.length);
  }
}

absl::Duration CopyPipeline::HoldBack() {
  if (options_.throttle == nullptr || reader_.waiting_reads() == 0) return absl::ZeroDuration();
  const base::MonotonicTime now = options_.throttle->clock().Monotonic();
  const uint64_t length = reader_.next_read_length();
  if (booked_bytes_ < length) {
    // A frame's worth at once, as clones do: all are served in turn, and who came with one small
    // file each time would stand still beside them.
    const uint64_t more = std::max<uint64_t>(length, store::kFrameRawMax);
    booked_until_ = now + options_.throttle->Book(more);
    booked_bytes_ += more;
  }
  return booked_until_ - now;
}

// ---- encoded frames

absl::Status CopyPipeline::FinishFrame(FrameJob& job) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.frame"));
  store::PackWriter::Place place;
  if (job.raw_length > 0) {
    METAL_ASSIGN_OR_RETURN(place, packs_.Append(job.header(), job.payload()));
    ++totals_.frames;
  }
  totals_.pages_in_window += job.pages_in_window;
  totals_.corrupt_page_count += job.corrupt_pages.size();
  for (CorruptPage& page : job.corrupt_pages) {
    if (totals_.corrupt_pages.size() == kCorruptPagesKept) break;
    totals_.corrupt_pages.push_back(std::move(page));
  }
  METAL_ASSIGN_OR_RETURN(const uint64_t bytes, reader_.Close(job, {place.pack, place.offset}));
  progress_.AddDone(bytes);
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
    if (job.raw_length > 0 && !packs_.CanAppend(job.stored_size())) break;
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
    if (request->op == uring::IoOp::kWrite) {
      METAL_RETURN_IF_ERROR(packs_.Complete(request));
      continue;
    }
    read_bytes_in_flight_ -= request->length;
    METAL_RETURN_IF_ERROR(reader_.Complete(*static_cast<FrameRead*>(request->context)));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> CopyPipeline::Turn() {
  METAL_RETURN_IF_ERROR(progress_.CheckCancelled());
  if (options_.watch) METAL_RETURN_IF_ERROR(options_.watch());
  METAL_RETURN_IF_ERROR(TakeFinished());
  METAL_RETURN_IF_ERROR(AppendEncoded());
  bool more_to_fill = true;
  for (size_t i = 0; i < kFillsPerTurn && more_to_fill; ++i) {
    if (reader_.waiting_reads() >= kWaitingReadsMax) {
      more_to_fill = false;
    } else {
      METAL_ASSIGN_OR_RETURN(more_to_fill, reader_.FillOne());
    }
  }
  while (FrameJob* job = reader_.TakeReady()) workers_->Submit(job);
  StartRequests();
  const bool idle = engine_->in_flight() == 0 && workers_->outstanding() == 0 && encoded_.empty();
  // Reads that wait with nothing in flight are held back by the throttle.
  if (idle && !more_to_fill && reader_.waiting_reads() == 0) return false;
  absl::Duration patience = more_to_fill ? absl::ZeroDuration() : kPollCancel;
  if (held_back_) {
    patience = std::min(patience, std::max(HoldBack(), absl::Milliseconds(1)));
  }
  METAL_RETURN_IF_ERROR(Wait(patience));
  return true;
}

absl::Status CopyPipeline::Drain() {
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool more, Turn());
    if (!more) break;
  }
  METAL_CHECK(reader_.idle());
  totals_.vanished_files = reader_.vanished_files();
  totals_.shrunk_files = reader_.shrunk_files();
  return absl::OkStatus();
}

absl::Status CopyPipeline::CopyTree(DirectoryWalk& walk) {
  reader_.Begin(walk);
  return Drain();
}

absl::Status CopyPipeline::AddFile(const FileEntry& entry, std::string_view contents) {
  METAL_RETURN_IF_ERROR(reader_.AddFile(entry, contents));
  return Drain();
}

absl::Status CopyPipeline::Finish() {
  packs_.Seal();
  return Drain();
}

}  // namespace metal::backup
