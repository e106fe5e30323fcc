// Reads one file of the WAL archive, verifying every byte. Source:
// agent/docs/repository-format-wal.md. Threading: one thread at a time. Blocks on the repository's
// disk.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/wal_object.h"
#include "agent/base/fd.h"

namespace metal::backup {

class WalReader {
 public:
  // Opens and checks header, size, name and cluster. NOT_FOUND: no such file. DATA_LOSS (reason
  // REPOSITORY): damaged.
  static absl::StatusOr<WalReader> Open(const std::string& path, uint64_t system_identifier,
                                        std::string_view name);

  // The header alone, also of a file whose frames are cut off. Errors as Open.
  static absl::StatusOr<WalObjectHeader> ReadHeader(const std::string& path,
                                                    uint64_t system_identifier,
                                                    std::string_view name);

  const WalObjectHeader& header() const { return header_; }
  // The next piece, in codec.raw(); empty at the end, once length, CRC and digest of all pieces
  // proved right. DATA_LOSS (reason REPOSITORY): damaged.
  absl::StatusOr<std::span<const std::byte>> Next(WalFrameCodec& codec);
  // Makes the opened file durable.
  absl::Status Sync();

 private:
  WalReader(base::UniqueFd fd, std::string path, WalObjectHeader header)
      : fd_(std::move(fd)), path_(std::move(path)), header_(std::move(header)) {}
  static absl::StatusOr<WalReader> OpenUnsized(const std::string& path, uint64_t system_identifier,
                                               std::string_view name);
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const;
  absl::Status CheckTotals() const;

  base::UniqueFd fd_;
  std::string path_;
  WalObjectHeader header_;
  uint64_t offset_ = kWalObjectHeaderSize;
  WalDigest digest_;
};

}  // namespace metal::backup
