// How much room a file system has, and how much of it must stay free.
// Source: statvfs(3), by the sums of df(1): what only root may take counts neither as used nor as
// free.
// Threading: pure functions, but for ReadFilesystemRoom.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::base {

struct FilesystemRoom {
  uint64_t id = 0;  // of the file system; 0: it has none
  uint64_t size_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t free_bytes = 0;               // for an ordinary user
  uint64_t inodes = 0, free_inodes = 0;  // 0 inodes: it has no limit of them
};

// Blocks on the file system of `path`, for ever when its disk hangs. Errors of statvfs(3).
absl::StatusOr<FilesystemRoom> ReadFilesystemRoom(const std::string& path);

// Shares of what ordinary users may take, 0 to 100.
double UsedPercent(const FilesystemRoom& room);
double InodesUsedPercent(const FilesystemRoom& room);  // 0 without a limit

// Below this many free bytes the file system counts as full: what is beyond `read_only_at` percent
// (0: nothing), and at least 64 MiB, which are a few WAL files, or a tenth of a small file system.
ByteCount LeastFree(const FilesystemRoom& room, int read_only_at);
// The same of inodes: 1000 at most, for a server needs few. 0 without a limit.
uint64_t LeastFreeInodes(const FilesystemRoom& room);

}  // namespace metal::base
