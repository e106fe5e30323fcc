// Stores one file in the WAL archive so that it is either absent or whole, and durable once stored.
// Threading: functions and classes hold no shared state. Blocks on the repository's disk and on the
// source's.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/wal_object.h"

namespace metal::backup {

// What is to be archived: an open regular file, or bytes. Borrows both.
class WalSource {
 public:
  // INVALID_ARGUMENT when fd is no regular file that can be read. `name` is for messages.
  static absl::StatusOr<WalSource> FromFd(int fd, std::string_view name);
  static WalSource FromBytes(std::span<const std::byte> bytes, std::string_view name);

  uint64_t size() const { return size_; }
  // Fills `out` from `offset`; buffered: WAL that was just written is in the page cache. DATA_LOSS
  // when the file ends early.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;

 private:
  int fd_ = -1;
  std::span<const std::byte> bytes_;
  uint64_t size_ = 0;
  std::string name_;
};

struct WalWriteOptions {
  std::string path;                // where the file becomes visible
  std::string incoming_directory;  // where it grows; same filesystem
  uint64_t system_identifier = 0;
  std::string name;
  bool replace = false;  // false: ALREADY_EXISTS when `path` is there
};

// Stored size in bytes: frames and header into a locked temporary file, fsync, rename, fsync of the
// directory. On any error before the rename nothing is left. RESOURCE_EXHAUSTED (reason NO_SPACE):
// the disk is full.
absl::StatusOr<uint64_t> WriteWalObject(const WalWriteOptions& options, const WalSource& source,
                                        WalFrameCodec& codec);

// Removes the files of `incoming_directory` that no live process writes. NOT_FOUND is OK.
absl::Status RemoveAbandonedWal(const std::string& incoming_directory);

}  // namespace metal::backup
