#include "agent/backup/wal_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

absl::Status Damaged(const std::string& path, std::string_view what) {
  return base::WithReason(
      base::Error(
          absl::StatusCode::kDataLoss,
          "read archived WAL {}: {}. HINT: copy the file from another repository, or take a new "
          "full backup",
          path, what),
      {"REPOSITORY", {{"file", path}}});
}

absl::Status Explain(const std::string& path, const absl::Status& status) {
  if (!absl::IsDataLoss(status)) return base::Annotate(status, "read archived WAL " + path);
  return Damaged(path, std::string_view(status.message().data(), status.message().size()));
}

}  // namespace

absl::StatusOr<WalReader> WalReader::OpenUnsized(const std::string& path,
                                                 uint64_t system_identifier,
                                                 std::string_view name) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd fd, base::OpenFile(path, O_RDONLY));
  WalReader reader(std::move(fd), path, {});
  std::array<std::byte, kWalObjectHeaderSize> bytes;
  METAL_RETURN_IF_ERROR(reader.ReadAt(0, bytes));
  auto header = DecodeWalObjectHeader(bytes);
  if (!header.ok()) return Explain(path, header.status());
  if (header->name != name || header->system_identifier != system_identifier) {
    return Damaged(
        path, fmt::format("it is file {} of cluster {}", header->name, header->system_identifier));
  }
  reader.header_ = *std::move(header);
  return reader;
}

absl::StatusOr<WalReader> WalReader::Open(const std::string& path, uint64_t system_identifier,
                                          std::string_view name) {
  METAL_ASSIGN_OR_RETURN(WalReader reader, OpenUnsized(path, system_identifier, name));
  struct stat status;
  if (fstat(reader.fd_.get(), &status) != 0) return base::ErrnoStatus(errno, "stat", path);
  const uint64_t expected = kWalObjectHeaderSize + reader.header_.stored_bytes;
  if (static_cast<uint64_t>(status.st_size) != expected) {
    return Damaged(path,
                   fmt::format("it has {} bytes, its header says {}", status.st_size, expected));
  }
  return reader;
}

absl::StatusOr<WalObjectHeader> WalReader::ReadHeader(const std::string& path,
                                                      uint64_t system_identifier,
                                                      std::string_view name) {
  METAL_ASSIGN_OR_RETURN(WalReader reader, OpenUnsized(path, system_identifier, name));
  return std::move(reader.header_);
}

absl::StatusOr<std::span<const std::byte>> WalReader::Next(WalFrameCodec& codec) {
  const uint64_t end = kWalObjectHeaderSize + header_.stored_bytes;
  if (offset_ == end) {
    METAL_RETURN_IF_ERROR(CheckTotals());
    return std::span<const std::byte>();
  }
  if (end - offset_ < store::kFrameHeaderSize) return Damaged(path_, "the last frame is cut off");
  const std::span<std::byte> stored = codec.stored();
  METAL_RETURN_IF_ERROR(ReadAt(offset_, stored.first(store::kFrameHeaderSize)));
  auto frame = store::DecodeFrameHeader(stored.first<store::kFrameHeaderSize>());
  if (!frame.ok()) return Explain(path_, frame.status());
  const size_t length = store::kFrameHeaderSize + frame->stored_length;
  if (end - offset_ < length) return Damaged(path_, "the last frame is cut off");
  METAL_RETURN_IF_ERROR(ReadAt(offset_ + store::kFrameHeaderSize,
                               stored.subspan(store::kFrameHeaderSize, frame->stored_length)));
  auto raw = codec.Decode(length);
  if (!raw.ok()) return Explain(path_, raw.status());
  if (digest_.raw_bytes() % kWalFrameBytes != 0)
    return Damaged(path_, "a frame in the middle is short");
  digest_.Add(*raw);
  if (digest_.raw_bytes() > header_.raw_bytes) return Damaged(path_, "it holds too many frames");
  offset_ += length;
  return *raw;
}

absl::Status WalReader::Sync() {
  if (fsync(fd_.get()) != 0) return base::ErrnoStatus(errno, "fsync", path_);
  return absl::OkStatus();
}

absl::Status WalReader::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = pread(fd_.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return base::ErrnoStatus(errno, "read", path_);
    if (n == 0) return Damaged(path_, "it is cut off");
    out = out.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status WalReader::CheckTotals() const {
  if (digest_.raw_bytes() != header_.raw_bytes)
    return Damaged(path_, "its length does not match its header");
  if (digest_.raw_crc32c() != header_.raw_crc32c || digest_.digest() != header_.digest) {
    return Damaged(path_, "its contents do not match its header");
  }
  return absl::OkStatus();
}

}  // namespace metal::backup
