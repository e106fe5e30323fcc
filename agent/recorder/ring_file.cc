#include "agent/recorder/ring_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "agent/base/crc32c.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::recorder {
namespace {

constexpr uint64_t kMagic = 0x31474e4952434552;  // "RECRING1"
constexpr size_t kWindow = 1 << 20;

// At the front of the file; the rest of the 4096 bytes is zero.
struct Header {
  uint64_t magic = kMagic;
  uint64_t file_size = 0;
  uint64_t id = 0;
  uint32_t reserved = 0;
  uint32_t crc = 0;  // CRC-32C of all before
};
static_assert(sizeof(Header) == 32);

uint32_t CrcOf(const Header& header) {
  return base::Crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, crc)));
}

// Fills as much of `bytes` as the file has from `offset` on; answers how much.
absl::StatusOr<size_t> ReadAt(int fd, std::span<std::byte> bytes, uint64_t offset,
                              const std::string& path) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got =
        ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read", path);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

absl::StatusOr<Header> ReadHeader(int fd, const std::string& path) {
  Header header;
  METAL_ASSIGN_OR_RETURN(const size_t size,
                         ReadAt(fd, std::as_writable_bytes(std::span(&header, 1)), 0, path));
  if (size != sizeof header || header.magic != kMagic || header.crc != CrcOf(header)) {
    return base::Error(absl::StatusCode::kDataLoss, "{}: not a recorder's ring", path);
  }
  return header;
}

// Calls visit(position, frame) for each whole frame that begins in [from, to), in the file's order,
// until it answers false.
template <typename Visit>
absl::Status ScanFrames(int fd, const Header& header, uint64_t from, uint64_t to,
                        const std::string& path, Visit visit) {
  std::vector<std::byte> window(kWindow + kFrameMost);
  while (from < to) {
    const size_t wanted = std::min<uint64_t>(window.size(), header.file_size - from);
    METAL_ASSIGN_OR_RETURN(const size_t size,
                           ReadAt(fd, std::span(window).first(wanted), from, path));
    const uint64_t begins = std::min<uint64_t>(to - from, kWindow);
    uint64_t at = 0;
    while (at < begins && at + kFrameHeader <= size) {
      const auto rest = std::span<const std::byte>(window).subspan(at, size - at);
      if (!FrameSizeAt(rest) || !FrameIsWhole(rest, header.id)) {
        at += 8;
        continue;
      }
      if (!visit(from + at, rest)) return absl::OkStatus();
      at += *FrameSizeAt(rest);
    }
    if (size < wanted) return absl::OkStatus();
    from += std::max(at, begins);
  }
  return absl::OkStatus();
}

// Where the newest frame is: its sequence (0: none) and the position after it.
struct RingEnd {
  uint64_t sequence = 0;
  uint64_t position = kRingHeader;
};
absl::StatusOr<RingEnd> FindRingEnd(int fd, const Header& header, const std::string& path) {
  RingEnd end;
  METAL_RETURN_IF_ERROR(ScanFrames(fd, header, kRingHeader, header.file_size, path,
                                   [&](uint64_t position, std::span<const std::byte> frame) {
                                     if (FrameSequence(frame) > end.sequence) {
                                       end = {FrameSequence(frame), position + *FrameSizeAt(frame)};
                                     }
                                     return true;
                                   }));
  return end;
}

// Takes the blocks from the disk now, so that a disk that fills up later stops no record.
absl::Status Allocate(int fd, uint64_t size, const std::string& path) {
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(size));
  if (error != 0) return base::ErrnoStatus(error, "take space for", path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RingWriter> RingWriter::Open(const std::string& path, base::ByteCount size) {
  METAL_RETURN_IF_ERROR(base::MakeDirectories(base::DirectoryOf(path)));
  RingWriter ring;
  ring.path_ = path;
  if (auto fd = base::OpenFile(path, O_RDWR); fd.ok()) {
    struct stat info {};
    if (::fstat(fd->get(), &info) != 0) return base::ErrnoStatus(errno, "stat", path);
    const auto header = ReadHeader(fd->get(), path);
    if (header.ok() && header->file_size == size.value &&
        static_cast<uint64_t>(info.st_size) == size.value) {
      ring.fd_ = *std::move(fd);
      ring.size_ = header->file_size;
      ring.id_ = header->id;
      METAL_RETURN_IF_ERROR(ring.FindEnd());
      return ring;
    }
    if (!header.ok() && !absl::IsDataLoss(header.status())) return header.status();
    if (::rename(path.c_str(), (path + ".old").c_str()) != 0)
      return base::ErrnoStatus(errno, "rename", path);
  } else if (!absl::IsNotFound(fd.status())) {
    return fd.status();
  }
  METAL_RETURN_IF_ERROR(ring.Create(size));
  return ring;
}

absl::Status RingWriter::Create(base::ByteCount size) {
  if (size.value < kRingLeast) {
    return base::Error(absl::StatusCode::kInvalidArgument, "recorder: {} bytes are too few",
                       size.value);
  }
  const std::string temporary = path_ + ".new";
  METAL_ASSIGN_OR_RETURN(fd_, base::OpenFile(temporary, O_RDWR | O_CREAT | O_TRUNC, 0600));
  if (const absl::Status taken = Allocate(fd_.get(), size.value, temporary); !taken.ok()) {
    ::unlink(temporary.c_str());  // gives back what it got; the error is what matters
    return taken;
  }
  std::random_device random;
  Header header;
  header.file_size = size.value;
  header.id = uint64_t{random()} << 32 | random();
  header.crc = CrcOf(header);
  const auto bytes = std::as_bytes(std::span(&header, 1));
  METAL_RETURN_IF_ERROR(base::WriteAll(
      fd_.get(), {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, temporary));
  if (::fsync(fd_.get()) != 0) return base::ErrnoStatus(errno, "fsync", temporary);
  if (::rename(temporary.c_str(), path_.c_str()) != 0)
    return base::ErrnoStatus(errno, "rename", temporary);
  METAL_RETURN_IF_ERROR(base::SyncDirectory(base::DirectoryOf(path_)));
  size_ = header.file_size;
  id_ = header.id;
  return absl::OkStatus();
}

absl::Status RingWriter::FindEnd() {
  Header header;
  header.file_size = size_;
  header.id = id_;
  METAL_ASSIGN_OR_RETURN(const RingEnd end, FindRingEnd(fd_.get(), header, path_));
  next_sequence_ = end.sequence + 1;
  position_ = end.position;
  return absl::OkStatus();
}

absl::Status RingWriter::Append(std::span<std::byte> frames) {
  size_t run = 0;  // frames that lie one after another in the file go out in one call
  while (run < frames.size()) {
    const std::span<std::byte> frame = frames.subspan(run);
    const auto size = FrameSizeAt(frame);
    if (!size || *size > frame.size())
      return base::Error(absl::StatusCode::kInternal, "recorder: no frame at byte {}", run);
    if (position_ + run + *size > size_) {
      METAL_RETURN_IF_ERROR(Write(frames.first(run)));
      // What the lap before left there is older than what is about to be overwritten.
      METAL_RETURN_IF_ERROR(Write(std::vector<std::byte>(size_ - position_)));
      frames = frames.subspan(run);
      run = 0;
      position_ = kRingHeader;
      continue;
    }
    SealFrame(frame.first(*size), id_, next_sequence_++);
    run += *size;
  }
  return Write(frames);
}

absl::Status RingWriter::Write(std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::pwrite(fd_.get(), bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(position_ + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return base::ErrnoStatus(errno, "write", path_);
    done += static_cast<size_t>(put);
  }
  position_ += bytes.size();
  return absl::OkStatus();
}

absl::Status RingWriter::Sync() {
  if (::fdatasync(fd_.get()) != 0) return base::ErrnoStatus(errno, "fdatasync", path_);
  return absl::OkStatus();
}

absl::Status ReadRing(const std::string& path, const std::function<bool(const Record&)>& visit) {
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd fd, base::OpenFile(path, O_RDONLY));
  METAL_ASSIGN_OR_RETURN(const Header header, ReadHeader(fd.get(), path));
  METAL_ASSIGN_OR_RETURN(const RingEnd end, FindRingEnd(fd.get(), header, path));
  // After the newest comes the oldest. Only a reader that is overtaken sees others.
  uint64_t last = 0;
  bool more = true;
  const auto take = [&](uint64_t, std::span<const std::byte> frame) {
    const uint64_t sequence = FrameSequence(frame);
    if (sequence <= last || sequence > end.sequence) return true;
    last = sequence;
    more = visit(DecodeFrame(frame));
    return more;
  };
  METAL_RETURN_IF_ERROR(ScanFrames(fd.get(), header, end.position, header.file_size, path, take));
  if (!more) return absl::OkStatus();
  return ScanFrames(fd.get(), header, kRingHeader, end.position, path, take);
}

}  // namespace metal::recorder
