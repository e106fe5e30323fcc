#include "agent/backup/clone_receiver.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "agent/backup/clone_piece.h"
#include "agent/base/crc32c.h"
#include "agent/base/fault_point.h"
#include "agent/base/status.h"
#include "agent/store/frame.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(100);
constexpr size_t kJobsMin = 4;
constexpr size_t kJobsMax = 64;

// Each connection holds a frame that it decodes.
uint64_t EncodedBytes(size_t links, std::string_view codec) {
  return codec == "none" ? 0 : links * (store::kFrameHeaderSize + store::kFrameStoredMax);
}

}  // namespace

base::ByteCount CloneReceiveWanted(size_t links, std::string_view codec) {
  return {kJobsMax * store::kFrameRawMax + EncodedBytes(links, codec)};
}

base::ByteCount CloneReceiveLeast(size_t links, std::string_view codec) {
  return {kJobsMin * store::kFrameRawMax + EncodedBytes(links, codec)};
}

uint32_t CloneEngineDepth(const CloneReceiveOptions& options) {
  return std::max<uint32_t>(options.queue_depth, 16) + static_cast<uint32_t>(kJobsMax);
}

absl::StatusOr<std::unique_ptr<CloneReceiver>> CloneReceiver::Create(
    CloneReceiveOptions options, std::unique_ptr<uring::IoEngine> engine,
    observe::Progress& progress, base::Clock& clock) {
  std::unique_ptr<CloneReceiver> receiver(
      new CloneReceiver(std::move(options), std::move(engine), progress, clock));
  METAL_ASSIGN_OR_RETURN(TargetWriter target,
                         TargetWriter::Create(receiver->options_.target_directory));
  receiver->target_ = std::move(target);
  return receiver;
}

CloneReceiver::CloneReceiver(CloneReceiveOptions options, std::unique_ptr<uring::IoEngine> engine,
                             observe::Progress& progress, base::Clock& clock)
    : options_(std::move(options)),
      progress_(progress),
      clock_(clock),
      heard_(clock.Monotonic()),
      engine_(std::move(engine)) {
  const uint64_t encoded = EncodedBytes(options_.links, options_.codec);
  const size_t affordable =
      (std::max(options_.memory.value, encoded) - encoded) / store::kFrameRawMax;
  const size_t count = std::clamp(affordable, kJobsMin, kJobsMax);
  memory_ = uring::AlignedBuffer(count * store::kFrameRawMax);
  for (size_t i = 0; i < count; ++i) {
    jobs_.push_back(std::make_unique<Job>(
        memory_.span().subspan(i * store::kFrameRawMax, store::kFrameRawMax), decoders_));
    free_jobs_.push_back(jobs_.back().get());
  }
  for (size_t i = 0; i < std::max<size_t>(options_.links, 1); ++i) {
    decoders_.push_back(stream::MakeDecoder());
    links_.push_back(std::make_unique<Link>());
    links_.back()->index = i;
  }
}

CloneReceiver::~CloneReceiver() {
  StopLinks();
  engine_.reset();  // waits for writes under way, before their buffers go
}

// ---- ring thread

void CloneReceiver::StopLinks() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    for (const auto& link : links_) {
      if (link->channel != nullptr) link->channel->Interrupt();
    }
    changed_.NotifyAll();
  }
  for (const auto& link : links_) link->thread.Join();
}

absl::Status CloneReceiver::Failure() {
  base::MutexLock lock(mutex_);
  return failure_;
}

absl::StatusOr<CloneEnd> CloneReceiver::Run() {
  for (const auto& link : links_) {
    Link* const raw = link.get();
    link->thread =
        base::Thread(fmt::format("clone-{}", link->index), [this, raw] { LinkLoop(*raw); });
  }
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool more, Turn());
    if (!more) break;
  }
  StopLinks();
  base::MutexLock lock(mutex_);
  totals_.reconnects = reconnects_;
  return *end_;
}

absl::StatusOr<bool> CloneReceiver::Turn() {
  METAL_RETURN_IF_ERROR(progress_.CheckCancelled());
  METAL_RETURN_IF_ERROR(Failure());
  METAL_RETURN_IF_ERROR(TakeArrivals());
  while (!waiting_.empty() && engine_->in_flight() < engine_->depth()) {
    engine_->Submit(waiting_.front());
    waiting_.pop_front();
  }
  if (end_ && engine_->in_flight() == 0 && waiting_.empty()) {
    if (open_files_.empty()) return false;
    return CloneDamage(fmt::format("the source did not complete {}", open_files_.begin()->first));
  }
  METAL_RETURN_IF_ERROR(Wait());
  return true;
}

absl::Status CloneReceiver::Wait() {
  absl::Duration timeout = kPoll;
  {
    base::MutexLock lock(mutex_);
    ring_sleeps_ = arrivals_.empty() && failure_.ok();
    if (!ring_sleeps_) timeout = absl::ZeroDuration();
  }
  done_.clear();
  METAL_RETURN_IF_ERROR(engine_->Reap(done_, timeout));
  for (uring::IoRequest* request : done_) {
    METAL_RETURN_IF_ERROR(CompleteWrite(*static_cast<UnpackPiece*>(request->context)));
  }
  return absl::OkStatus();
}

absl::Status CloneReceiver::TakeArrivals() {
  std::deque<Arrival> arrivals;
  {
    base::MutexLock lock(mutex_);
    ring_sleeps_ = false;
    arrivals.swap(arrivals_);
  }
  for (Arrival& arrival : arrivals) {
    if (arrival.job != nullptr) METAL_RETURN_IF_ERROR(WriteParts(*arrival.job));
    for (const FileListRecord& record : arrival.records) {
      METAL_RETURN_IF_ERROR(TakeRecord(record));
    }
    if (arrival.end) end_ = std::move(arrival.end);
  }
  return absl::OkStatus();
}

absl::StatusOr<TargetFile*> CloneReceiver::FileOf(const ClonePiece& piece) {
  const auto found = open_files_.find(piece.path);
  if (found != open_files_.end()) return found->second.get();
  auto file = std::make_unique<TargetFile>();
  file->entry = EntryOf(piece);
  absl::Status opened = target_->Open(*file);
  if (absl::IsNotFound(opened)) {
    METAL_RETURN_IF_ERROR(MakeParents(target_->directory(), piece.path));
    opened = target_->Open(*file);
  }
  METAL_RETURN_IF_ERROR(opened);
  TargetFile* const raw = file.get();
  open_files_.emplace(piece.path, std::move(file));
  return raw;
}

absl::Status CloneReceiver::WriteParts(Job& job) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("clone.target_frame"));
  for (const ClonePiece& piece : job.data.pieces) {
    if (piece.whole) continue;
    METAL_ASSIGN_OR_RETURN(TargetFile* const file, FileOf(piece));
    UnpackPiece& part = job.frame.pieces.emplace_back();
    part.file = file;
    part.job = &job.frame;
    part.file_offset = piece.file_offset;
    part.frame_offset = piece.frame_offset;
    part.length = piece.length;
    part.crc32c = piece.crc32c;
    part.extent = static_cast<uint32_t>(piece.file_offset / store::kFrameRawMax);
    if (file->crcs.size() <= part.extent) {
      file->crcs.resize(part.extent + 1);
      file->lengths.resize(part.extent + 1);
    }
    file->crcs[part.extent] = piece.crc32c;
    file->lengths[part.extent] = piece.length;
    ++file->pieces_open;
    ++job.frame.writes_open;
  }
  for (UnpackPiece& part : job.frame.pieces) waiting_.push_back(target_->Write(part));
  return absl::OkStatus();
}

absl::Status CloneReceiver::CompleteWrite(UnpackPiece& piece) {
  METAL_ASSIGN_OR_RETURN(const bool written, target_->Complete(piece));
  if (!written) {
    waiting_.push_back(&piece.write);
    return absl::OkStatus();
  }
  progress_.AddDone(piece.length);
  TargetFile& file = *piece.file;
  UnpackJob* const frame = piece.job;
  if (--frame->writes_open == 0) {
    const auto job = std::find_if(jobs_.begin(), jobs_.end(),
                                  [&](const auto& each) { return &each->frame == frame; });
    ReleaseJob(job->get());
  }
  if (--file.pieces_open == 0 && file.all_issued) return FinishFile(file);
  return absl::OkStatus();
}

// A record of a file comes after all of its parts were acknowledged, so after they arrived here.
absl::Status CloneReceiver::TakeRecord(const FileListRecord& record) {
  if (record.kind == RecordKind::kDirectory) {
    if (record.file.path.find('/') != std::string::npos) {
      METAL_RETURN_IF_ERROR(MakeParents(target_->directory(), record.file.path));
    }
    return options_.on_directory(record);
  }
  ++totals_.files;
  totals_.bytes += record.file.size;
  const auto found = open_files_.find(record.file.path);
  if (found != open_files_.end()) {
    TargetFile& file = *found->second;
    file.padded |= file.entry.size != record.file.size;
    file.entry = record.file;
    file.all_issued = true;
    return file.pieces_open == 0 ? FinishFile(file) : absl::OkStatus();
  }
  if (record.file.size > 0) return absl::OkStatus();  // was written whole
  absl::Status written = WriteSmallFile(target_->directory(), record.file, {});
  if (absl::IsNotFound(written)) {
    METAL_RETURN_IF_ERROR(MakeParents(target_->directory(), record.file.path));
    written = WriteSmallFile(target_->directory(), record.file, {});
  }
  return WithSpaceReason(std::move(written), options_.target_directory);
}

absl::Status CloneReceiver::FinishFile(TargetFile& file) {
  uint64_t covered = 0;
  uint32_t crc = 0;
  for (size_t i = 0; i < file.crcs.size() && covered < file.entry.size; ++i) {
    crc = base::Crc32cCombine(crc, file.crcs[i], file.lengths[i]);
    covered += file.lengths[i];
  }
  if (covered != file.entry.size || (covered > 0 && crc != file.entry.crc32c)) {
    return CloneDamage(fmt::format("{}: {} of {} bytes, CRC-32C {:08x} and should be {:08x}",
                                   file.entry.path, covered, file.entry.size, crc,
                                   file.entry.crc32c));
  }
  METAL_RETURN_IF_ERROR(target_->Close(file));
  open_files_.erase(open_files_.find(file.entry.path));
  return absl::OkStatus();
}

}  // namespace metal::backup
