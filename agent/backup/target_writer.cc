#include "agent/backup/target_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/uring/buffer_pool.h"

namespace metal::backup {
namespace {

constexpr uint32_t kAlign = uring::kDirectIoAlignment;
constexpr uint32_t kStallsMax = 8;  // short writes that do not reach the next block

uint64_t RoundUp(uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

}  // namespace

absl::Status WithSpaceReason(absl::Status status, const std::string& path) {
  if (!absl::IsResourceExhausted(status)) return status;
  return base::WithReason(std::move(status), {"NO_SPACE", {{"path", path}}});
}

absl::Status WriteSmallFile(int directory, const FileEntry& entry,
                            std::span<const std::byte> bytes) {
  const int fd = openat(directory, entry.path.c_str(),
                        O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, entry.mode & 0777);
  if (fd < 0) return base::ErrnoStatus(errno, "create", entry.path);
  base::UniqueFd file(fd);
  METAL_RETURN_IF_ERROR(base::WriteAll(
      fd, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), entry.path));
  if (fchmod(fd, entry.mode) != 0) return base::ErrnoStatus(errno, "chmod", entry.path);
  const timespec times[2] = {{entry.mtime, 0}, {entry.mtime, 0}};
  if (futimens(fd, times) != 0) return base::ErrnoStatus(errno, "set the time of", entry.path);
  return file.Close();
}

bool ClearDirect(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0;
}

absl::StatusOr<TargetWriter> TargetWriter::Create(const std::string& directory) {
  if (directory.empty()) return TargetWriter("", base::UniqueFd());
  METAL_ASSIGN_OR_RETURN(base::UniqueFd fd, base::OpenFile(directory, O_RDONLY | O_DIRECTORY));
  return TargetWriter(directory, std::move(fd));
}

absl::Status TargetWriter::Open(TargetFile& file) {
  const char* path = file.entry.path.c_str();
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  const mode_t mode = file.entry.mode & 0777;
  const bool want_direct = file.entry.size > 0;
  int fd = openat(directory_.get(), path, kFlags | (want_direct ? O_DIRECT : 0), mode);
  file.direct = fd >= 0 && want_direct;
  if (fd < 0 && errno == EINVAL) {
    unlinkat(directory_.get(), path, 0);  // open(2) creates the file before it refuses O_DIRECT
    fd = openat(directory_.get(), path, kFlags, mode);
  }
  const std::string full = base::JoinPath(path_, file.entry.path);
  if (fd < 0) return WithSpaceReason(base::ErrnoStatus(errno, "create", full), full);
  file.fd = base::UniqueFd(fd);
  if (file.entry.size == 0) return absl::OkStatus();
  // Writes inside the size of a preallocated file run in parallel; those that extend it do not.
  if (fallocate(fd, 0, 0, static_cast<off_t>(RoundUp(file.entry.size))) == 0) {
    file.padded = file.entry.size % kAlign != 0;
    return absl::OkStatus();
  }
  if (errno == EOPNOTSUPP || errno == ENOSYS) return absl::OkStatus();
  return WithSpaceReason(base::ErrnoStatus(errno, "preallocate", full), full);
}

uring::IoRequest* TargetWriter::Write(UnpackPiece& piece) {
  TargetFile& file = *piece.file;
  const uint64_t end = piece.file_offset + piece.length;
  uint64_t length = piece.length;
  if (file.direct) {
    const bool tail = end == file.entry.size;
    if (piece.file_offset % kAlign == 0 && piece.frame_offset % kAlign == 0 &&
        (length % kAlign == 0 || tail)) {
      length = RoundUp(length);
      file.padded |= end % kAlign != 0;
    } else {
      ClearDirect(file.fd.get());
      file.direct = false;
    }
  }
  piece.write.op = uring::IoOp::kWrite;
  piece.write.fd = file.fd.get();
  piece.write.buffer = piece.job->raw.data() + piece.frame_offset;
  piece.write.length = static_cast<uint32_t>(length);
  piece.write.offset = piece.file_offset;
  piece.write.context = &piece;
  return &piece.write;
}

absl::StatusOr<bool> TargetWriter::Complete(UnpackPiece& piece) {
  TargetFile& file = *piece.file;
  uring::IoRequest& request = piece.write;
  const std::string path = base::JoinPath(path_, file.entry.path);
  if (request.result == -EINVAL && !piece.fell_back && ClearDirect(file.fd.get())) {
    piece.fell_back = true;
    file.direct = false;
    return false;
  }
  if (request.result <= 0) {
    const int error = request.result < 0 ? -request.result : ENOSPC;
    return WithSpaceReason(base::ErrnoStatus(error, "write", path), path);
  }
  const auto done = static_cast<uint32_t>(request.result);
  if (done < request.length) {
    const uint32_t step = done & ~(kAlign - 1);
    if (step == 0 && ++piece.stalls > kStallsMax) return base::ErrnoStatus(EIO, "write", path);
    request.buffer += step;
    request.offset += step;
    request.length -= step;
    return false;
  }
  return true;
}

absl::Status TargetWriter::Close(TargetFile& file) {
  const std::string path = base::JoinPath(path_, file.entry.path);
  const int fd = file.fd.get();
  if (file.padded && ftruncate(fd, static_cast<off_t>(file.entry.size)) != 0) {
    return base::ErrnoStatus(errno, "truncate", path);
  }
  if (fchmod(fd, file.entry.mode) != 0) return base::ErrnoStatus(errno, "chmod", path);
  const timespec times[2] = {{file.entry.mtime, 0}, {file.entry.mtime, 0}};
  if (futimens(fd, times) != 0) return base::ErrnoStatus(errno, "set the time of", path);
  return file.fd.Close();
}

}  // namespace metal::backup
