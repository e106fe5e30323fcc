#include "agent/backup/wal_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>

#include "agent/base/fault_point.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr int kNameAttempts =
    100;  // other hosts that share the repository may use the same process id

// A temporary file: removed on destruction unless it was published.
class IncomingFile {
 public:
  static absl::StatusOr<IncomingFile> Create(const std::string& directory, std::string_view name) {
    static std::atomic<uint64_t> sequence{0};
    for (int attempt = 0; attempt < kNameAttempts; ++attempt) {
      const std::string path =
          base::JoinPath(directory, fmt::format("{}.{}.{}", name, getpid(), sequence.fetch_add(1)));
      auto fd = base::OpenFile(path, O_RDWR | O_CREAT | O_EXCL, 0640);
      if (absl::IsAlreadyExists(fd.status())) continue;
      if (!fd.ok()) return fd.status();
      // The lock says that the file is being written; the kernel drops it when this process dies.
      if (flock(fd->get(), LOCK_EX | LOCK_NB) != 0) return base::ErrnoStatus(errno, "lock", path);
      struct stat status;
      if (fstat(fd->get(), &status) != 0) return base::ErrnoStatus(errno, "stat", path);
      if (status.st_nlink == 0) continue;  // taken for abandoned before it was locked
      return IncomingFile(*std::move(fd), path);
    }
    return base::Error(
        absl::StatusCode::kUnavailable,
        "create a file for {} in {}: every name is taken. HINT: remove old files there", name,
        directory);
  }
  IncomingFile(IncomingFile&&) = default;
  ~IncomingFile() {
    if (fd_.valid() && !path_.empty()) unlink(path_.c_str());
  }

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  void MarkPublished() { path_.clear(); }
  absl::Status Close() { return fd_.Close(); }

 private:
  IncomingFile(base::UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  base::UniqueFd fd_;
  std::string path_;
};

// Frames at and after kWalObjectHeaderSize, then the header over the hole at the beginning: a file
// that was not finished has no magic.
absl::StatusOr<uint64_t> WriteContents(const WalWriteOptions& options, const WalSource& source,
                                       WalFrameCodec& codec, const IncomingFile& file) {
  if (lseek(file.fd(), kWalObjectHeaderSize, SEEK_SET) < 0)
    return base::ErrnoStatus(errno, "seek", file.path());
  WalDigest digest;
  uint64_t stored = 0;
  while (digest.raw_bytes() < source.size()) {
    const size_t length =
        static_cast<size_t>(std::min<uint64_t>(kWalFrameBytes, source.size() - digest.raw_bytes()));
    const std::span<std::byte> raw = codec.raw().first(length);
    METAL_RETURN_IF_ERROR(source.Read(digest.raw_bytes(), raw));
    digest.Add(raw);
    METAL_ASSIGN_OR_RETURN(const std::span<const std::byte> frame, codec.Encode(length));
    METAL_RETURN_IF_ERROR(base::WriteAll(
        file.fd(), {reinterpret_cast<const char*>(frame.data()), frame.size()}, file.path()));
    stored += frame.size();
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.frames_written"));
  const auto header = EncodeWalObjectHeader({.system_identifier = options.system_identifier,
                                             .raw_bytes = digest.raw_bytes(),
                                             .stored_bytes = stored,
                                             .digest = digest.digest(),
                                             .raw_crc32c = digest.raw_crc32c(),
                                             .name = options.name});
  if (lseek(file.fd(), 0, SEEK_SET) < 0) return base::ErrnoStatus(errno, "seek", file.path());
  METAL_RETURN_IF_ERROR(base::WriteAll(
      file.fd(), {reinterpret_cast<const char*>(header.data()), header.size()}, file.path()));
  return kWalObjectHeaderSize + stored;
}

// Makes `file` visible under options.path; atomic. ALREADY_EXISTS unless options.replace.
absl::Status Publish(const WalWriteOptions& options, const IncomingFile& file) {
  if (options.replace) {
    if (rename(file.path().c_str(), options.path.c_str()) != 0) {
      return base::ErrnoStatus(errno, "rename to", options.path);
    }
    return absl::OkStatus();
  }
  return base::RenameNoReplace(file.path(), options.path);
}

absl::StatusOr<uint64_t> WriteAndPublish(const WalWriteOptions& options, const WalSource& source,
                                         WalFrameCodec& codec) {
  const std::string directory = base::DirectoryOf(options.path);
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.begin"));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(options.incoming_directory, 0750));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(directory, 0750));
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.directories_made"));
  METAL_ASSIGN_OR_RETURN(IncomingFile file,
                         IncomingFile::Create(options.incoming_directory, options.name));
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.file_created"));
  METAL_ASSIGN_OR_RETURN(const uint64_t stored, WriteContents(options, source, codec, file));
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.header_written"));
  if (fsync(file.fd()) != 0) return base::ErrnoStatus(errno, "fsync", file.path());
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.file_synced"));
  METAL_RETURN_IF_ERROR(Publish(options, file));
  file.MarkPublished();
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.published"));
  METAL_RETURN_IF_ERROR(base::SyncDirectory(directory));
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.directory_synced"));
  // The archive is written once and seldom read: it shall not push the database out of the page
  // cache.
  posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  METAL_RETURN_IF_ERROR(base::Annotate(file.Close(), options.path));
  return stored;
}

}  // namespace

absl::StatusOr<WalSource> WalSource::FromFd(int fd, std::string_view name) {
  struct stat status;
  if (fstat(fd, &status) != 0) return base::ErrnoStatus(errno, "stat", name);
  const int flags = fcntl(fd, F_GETFL);
  if (!S_ISREG(status.st_mode) || flags < 0 || (flags & O_ACCMODE) == O_WRONLY ||
      (flags & O_PATH) != 0) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "WAL file {}: not a regular file that is open for reading. HINT: give %p",
                       name);
  }
  WalSource source;
  source.fd_ = fd;
  source.size_ = static_cast<uint64_t>(status.st_size);
  source.name_ = std::string(name);
  return source;
}

WalSource WalSource::FromBytes(std::span<const std::byte> bytes, std::string_view name) {
  WalSource source;
  source.bytes_ = bytes;
  source.size_ = bytes.size();
  source.name_ = std::string(name);
  return source;
}

absl::Status WalSource::Read(uint64_t offset, std::span<std::byte> out) const {
  if (fd_ < 0) {
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
    return absl::OkStatus();
  }
  while (!out.empty()) {
    const ssize_t n = pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return base::ErrnoStatus(errno, "read WAL file", name_);
    if (n == 0) {
      return base::Error(absl::StatusCode::kDataLoss,
                         "WAL file {}: it became shorter while it was read", name_);
    }
    out = out.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> WriteWalObject(const WalWriteOptions& options, const WalSource& source,
                                        WalFrameCodec& codec) {
  auto stored = WriteAndPublish(options, source, codec);
  if (!absl::IsResourceExhausted(stored.status())) return stored;
  return base::WithReason(
      base::Error(
          absl::StatusCode::kResourceExhausted,
          "{}. HINT: free space in the repository; PostgreSQL keeps the WAL and tries again",
          std::string_view(stored.status().message().data(), stored.status().message().size())),
      {"NO_SPACE", {{"path", options.incoming_directory}}});
}

absl::Status RemoveAbandonedWal(const std::string& incoming_directory) {
  METAL_ASSIGN_OR_RETURN(const bool present, base::Exists(incoming_directory));
  if (!present) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         base::ListDirectory(incoming_directory));
  for (const std::string& name : names) {
    const std::string path = base::JoinPath(incoming_directory, name);
    auto fd = base::OpenFile(path, O_RDWR);
    if (absl::IsNotFound(fd.status())) continue;
    if (!fd.ok()) return fd.status();
    if (flock(fd->get(), LOCK_EX | LOCK_NB) != 0) continue;  // its writer is alive
    if (unlink(path.c_str()) != 0 && errno != ENOENT)
      return base::ErrnoStatus(errno, "unlink", path);
  }
  return absl::OkStatus();
}

}  // namespace metal::backup
