#include "agent/store/pack_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/base/check.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::store {
namespace {

constexpr size_t kAlign = uring::kDirectIoAlignment;
constexpr uint32_t kStallsMax = 8;

size_t RoundUp(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

absl::Status WriteError(int error, const std::string& path) {
  absl::Status status = base::ErrnoStatus(error, "write", path);
  if (!absl::IsResourceExhausted(status)) return status;
  return base::WithReason(
      absl::ResourceExhaustedError(fmt::format(
          "{}. HINT: free space on the repository's filesystem, then take the backup again",
          std::string(status.message()))),
      {"NO_SPACE", {{"path", path}}});
}

// Where O_DIRECT is not supported (tmpfs, some network filesystems) the page cache is used.
absl::StatusOr<base::UniqueFd> OpenForWriting(const std::string& path, bool& direct) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL;
  auto fd = base::OpenFile(path, kFlags | O_DIRECT, 0640);
  direct = fd.ok();
  if (fd.ok() || !absl::IsInvalidArgument(fd.status())) return fd;
  unlink(path.c_str());  // open(2) creates the file before it refuses O_DIRECT
  return base::OpenFile(path, kFlags, 0640);
}

}  // namespace

absl::Status FinishPack(PackFile& pack) {
  METAL_CHECK(pack.sealed && pack.writes_open == 0);
  if (ftruncate(pack.fd.get(), static_cast<off_t>(pack.size)) != 0) {
    return base::ErrnoStatus(errno, "truncate", pack.path);
  }
  if (fsync(pack.fd.get()) != 0) return base::ErrnoStatus(errno, "fsync", pack.path);
  return pack.fd.Close();
}

PackWriter::PackWriter(Options options)
    : options_(std::move(options)), memory_(options_.buffer_count * options_.buffer_size) {
  METAL_CHECK(options_.buffer_size % kAlign == 0);
  buffers_.resize(options_.buffer_count);
  for (size_t i = 0; i < buffers_.size(); ++i) {
    buffers_[i].data = memory_.data() + i * options_.buffer_size;
    free_.push_back(&buffers_[i]);
  }
}

bool PackWriter::CanAppend(size_t size) const {
  // A new pack may begin: its header takes a block, and what is left of the current buffer stays
  // unused.
  return free_.size() * options_.buffer_size >= size + kPackHeaderSize;
}

absl::Status PackWriter::OpenPack() {
  auto pack = std::make_unique<PackFile>();
  const auto number = static_cast<uint32_t>(packs_.size() + 1);
  pack->name = fmt::format("{}/{}.pack", options_.label, number);
  pack->path = base::JoinPath(options_.directory, fmt::format("{}.pack", number));
  METAL_ASSIGN_OR_RETURN(pack->fd, OpenForWriting(pack->path, pack->direct));
  pack_ = pack.get();
  packs_.push_back(std::move(pack));
  std::byte header[kPackHeaderSize];
  EncodePackHeader({options_.system_identifier, number, options_.label}, header);
  METAL_RETURN_IF_ERROR(Preallocate(*pack_, kPackHeaderSize));
  CopyIn(header);
  return absl::OkStatus();
}

absl::Status PackWriter::Preallocate(PackFile& pack, uint64_t up_to) {
  while (pack.allocated < up_to) {
    const uint64_t step =
        std::max<uint64_t>(std::min(options_.preallocate, options_.pack_size_max), kAlign);
    if (fallocate(pack.fd.get(), 0, static_cast<off_t>(pack.allocated), static_cast<off_t>(step)) ==
        0) {
      pack.allocated += step;
      continue;
    }
    if (errno == EINTR) continue;
    // Not supported, or too little space for a whole step: the writes themselves will tell.
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != ENOSPC && errno != EDQUOT) {
      return WriteError(errno, pack.path);
    }
    pack.allocated = UINT64_MAX;
  }
  return absl::OkStatus();
}

void PackWriter::CopyIn(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (current_ == nullptr) {
      METAL_CHECK(!free_.empty());
      current_ = free_.back();
      free_.pop_back();
      current_->fill = 0;
      current_->pack = pack_;
      current_->file_offset = pack_->size;
      ++pack_->writes_open;
      ++writes_open_;
    }
    const size_t n = std::min(bytes.size(), options_.buffer_size - current_->fill);
    std::memcpy(current_->data + current_->fill, bytes.data(), n);
    current_->fill += n;
    pack_->size += n;
    stored_bytes_ += n;
    bytes = bytes.subspan(n);
    if (current_->fill == options_.buffer_size) QueueCurrent();
  }
}

void PackWriter::QueueCurrent() {
  const size_t length = RoundUp(current_->fill);
  std::memset(current_->data + current_->fill, 0, length - current_->fill);
  uring::IoRequest& request = current_->request;
  request.op = uring::IoOp::kWrite;
  request.fd = current_->pack->fd.get();
  request.buffer = current_->data;
  request.length = static_cast<uint32_t>(length);
  request.offset = current_->file_offset;
  request.context = this;
  current_->fell_back = false;
  current_->stalls = 0;
  queued_.push_back(current_);
  current_ = nullptr;
}

absl::StatusOr<PackWriter::Place> PackWriter::Append(std::span<const std::byte> header,
                                                     std::span<const std::byte> payload) {
  const uint64_t size = header.size() + payload.size();
  METAL_CHECK(CanAppend(size));
  if (pack_ != nullptr && pack_->size > kPackHeaderSize &&
      pack_->size + size > options_.pack_size_max) {
    Seal();
  }
  if (pack_ == nullptr) METAL_RETURN_IF_ERROR(OpenPack());
  METAL_RETURN_IF_ERROR(Preallocate(*pack_, pack_->size + size));
  const Place place{static_cast<uint32_t>(packs_.size() - 1), pack_->size};
  CopyIn(header);
  CopyIn(payload);
  return place;
}

void PackWriter::Seal() {
  if (pack_ == nullptr) return;
  if (current_ != nullptr) QueueCurrent();
  pack_->sealed = true;
  sealed_.push_back(pack_);
  pack_ = nullptr;
}

uring::IoRequest* PackWriter::NextWrite() {
  if (queued_.empty()) return nullptr;
  Buffer* buffer = queued_.front();
  queued_.erase(queued_.begin());
  return &buffer->request;
}

absl::Status PackWriter::Complete(uring::IoRequest* request) {
  const auto found = std::find_if(buffers_.begin(), buffers_.end(),
                                  [&](const Buffer& b) { return &b.request == request; });
  METAL_CHECK(found != buffers_.end());
  Buffer& buffer = *found;
  PackFile& pack = *buffer.pack;
  if (request->result == -EINVAL && !buffer.fell_back) {
    // The filesystem took the flag and refuses the write: go through the page cache.
    const int flags = fcntl(pack.fd.get(), F_GETFL);
    if (flags >= 0 && fcntl(pack.fd.get(), F_SETFL, flags & ~O_DIRECT) == 0) {
      pack.direct = false;
      buffer.fell_back = true;
      queued_.push_back(&buffer);
      return absl::OkStatus();
    }
  }
  if (request->result < 0) return WriteError(-request->result, pack.path);
  if (request->result == 0) return WriteError(ENOSPC, pack.path);
  const auto done = static_cast<uint32_t>(request->result);
  if (done < request->length) {
    // Goes on from the last whole block.
    const uint32_t step = done & ~static_cast<uint32_t>(kAlign - 1);
    if (step == 0 && ++buffer.stalls > kStallsMax) return WriteError(EIO, pack.path);
    request->buffer += step;
    request->offset += step;
    request->length -= step;
    queued_.push_back(&buffer);
    return absl::OkStatus();
  }
  --pack.writes_open;
  --writes_open_;
  free_.push_back(&buffer);
  return absl::OkStatus();
}

bool PackWriter::Owns(const uring::IoRequest* request, const PackWriter& writer) {
  return request->context == &writer;
}

PackFile* PackWriter::TakeWritten() {
  const auto found = std::find_if(sealed_.begin(), sealed_.end(),
                                  [](const PackFile* pack) { return pack->writes_open == 0; });
  if (found == sealed_.end()) return nullptr;
  PackFile* pack = *found;
  sealed_.erase(found);
  return pack;
}

}  // namespace metal::store
