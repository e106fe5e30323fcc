#include "agent/backup/frame_reader.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/base/check.h"
#include "agent/base/crc32c.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr uint32_t kAlign = uring::kDirectIoAlignment;
constexpr uint32_t kStallsMax = 8;  // short reads that do not reach the next block

uint32_t RoundUp(uint32_t n) { return (n + kAlign - 1) & ~(kAlign - 1); }

}  // namespace

FrameReader::FrameReader(Options options, std::vector<FrameJob*> jobs, FileRecorder& list)
    : options_(std::move(options)), list_(list), free_jobs_(std::move(jobs)) {}

void FrameReader::Begin(DirectoryWalk& walk) {
  walk_ = &walk;
  walk_ended_ = false;
}

bool FrameReader::idle() const {
  return walk_ended_ && large_ == nullptr && small_ == nullptr && bundle_ == nullptr &&
         waiting_reads_.empty() && ready_.empty();
}

// ---- filling frames

FrameJob* FrameReader::TakeJob() {
  if (free_jobs_.empty()) return nullptr;
  FrameJob* job = free_jobs_.back();
  free_jobs_.pop_back();
  job->Reset();
  return job;
}

SourceFile* FrameReader::NewFile() {
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

absl::Status FrameReader::OpenFile(const WalkEntry& entry) {
  constexpr int kFlags = O_RDONLY | O_CLOEXEC;
  bool direct = true;
  int fd = openat(entry.directory_fd, entry.name, kFlags | O_DIRECT);
  if (fd < 0 && errno == EINVAL) {
    direct = false;
    fd = openat(entry.directory_fd, entry.name, kFlags);
  }
  if (fd < 0 && errno == ENOENT) {
    ++vanished_files_;
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
absl::StatusOr<bool> FrameReader::NextFile() {
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

void FrameReader::AddPiece(FrameJob& job, SourceFile& file, uint64_t offset, uint32_t length) {
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

void FrameReader::AddReads(FrameJob& job, uint32_t index) {
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

bool FrameReader::FillLarge() {
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

bool FrameReader::FillBundle() {
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

void FrameReader::SealBundle() {
  if (bundle_ == nullptr) return;
  FrameJob* job = bundle_;
  bundle_ = nullptr;
  job->filled = true;
  DispatchWhenReady(*job);
}

// Prepares reads for one more frame, or looks at one more entry; false when it must wait for a free
// frame or all is issued.
absl::StatusOr<bool> FrameReader::FillOne() {
  if (large_ != nullptr) return FillLarge();
  if (small_ != nullptr) return FillBundle();
  if (walk_ended_) return false;
  return NextFile();
}

// ---- reads

FrameRead* FrameReader::TakeRead() {
  if (waiting_reads_.empty()) return nullptr;
  FrameRead* read = waiting_reads_.front();
  waiting_reads_.pop_front();
  return read;
}

absl::Status FrameReader::Complete(FrameRead& read) {
  FrameJob& job = *read.job;
  FramePiece& piece = job.pieces[read.piece];
  SourceFile& file = *piece.file;
  uring::IoRequest& request = read.request;
  if (request.result == -EINVAL && !read.fell_back) {
    // This filesystem takes O_DIRECT at open and refuses it here: read this file through the page
    // cache.
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
    if (fstat(file.fd.get(), &status) != 0)
      return base::ErrnoStatus(errno, "stat", file.entry.path);
    if (static_cast<uint64_t>(status.st_size) > request.offset + got) {
      // Short for another reason than the end of the file: goes on from the last whole block.
      const uint32_t step = got & ~(kAlign - 1);
      if (step == 0 && ++read.stalls > kStallsMax) {
        return base::ErrnoStatus(EIO, "read",
                                 base::JoinPath(options_.data_directory, file.entry.path));
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

void FrameReader::DispatchWhenReady(FrameJob& job) {
  if (!job.filled || job.reads_open > 0) return;
  for (FramePiece& piece : job.pieces) {
    SourceFile& file = *piece.file;
    if (piece.got == piece.wanted) continue;
    if (file.page_size != 0) piece.got = piece.got / file.page_size * file.page_size;
    file.entry.size = std::min(file.entry.size, piece.file_offset + piece.got);
    file.shrunk = file.all_issued = true;
    if (large_ == &file) large_ = nullptr;
  }
  ready_.push_back(&job);
}

FrameJob* FrameReader::TakeReady() {
  if (ready_.empty()) return nullptr;
  FrameJob* job = ready_.front();
  ready_.pop_front();
  return job;
}

// ---- finished frames

absl::Status FrameReader::EmitFile(SourceFile& file) {
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
  if (file.shrunk) ++shrunk_files_;
  METAL_RETURN_IF_ERROR(list_.AddFile(file.entry, std::span(file.extents).first(count)));
  file.fd.Reset();
  free_files_.push_back(&file);
  return absl::OkStatus();
}

absl::Status FrameReader::CloseFrameOf(SourceFile& file) {
  if (--file.frames_open > 0 || !file.all_issued) return absl::OkStatus();
  return EmitFile(file);
}

absl::Status FrameReader::AddFile(const FileEntry& entry, std::string_view contents) {
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
  METAL_CHECK(job != nullptr);  // REQUIRES idle(): every job is free
  AddPiece(*job, file, 0, static_cast<uint32_t>(contents.size()));
  std::memcpy(job->raw.data(), contents.data(), contents.size());
  job->filled = true;
  DispatchWhenReady(*job);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> FrameReader::Close(FrameJob& job, FramePlace place) {
  uint64_t bytes = 0;
  for (const FramePiece& piece : job.pieces) {
    Extent& extent = piece.file->extents[piece.extent];
    extent.file_offset = piece.file_offset;
    extent.length = piece.got;
    extent.pack = place.pack;
    extent.pack_offset = place.offset;
    extent.stored_length = static_cast<uint32_t>(job.stored_size());
    extent.raw_length = job.raw_length;
    extent.frame_offset = piece.frame_offset;
    piece.file->crcs[piece.extent] = piece.crc32c;
    bytes += piece.wanted;
    METAL_RETURN_IF_ERROR(CloseFrameOf(*piece.file));
  }
  free_jobs_.push_back(&job);
  return bytes;
}

}  // namespace metal::backup
