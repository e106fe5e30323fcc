// The reserve: space that is kept back in a file, and given to the server by removing it. It lies
// beside the directory that it is for, never in it: nothing that copies or cleans a data directory
// meets it.
// Threading: the functions block on the disk.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/filesystem_room.h"
#include "agent/base/units.h"

namespace metal::disk {

struct ReservePlace {
  std::string path;    // of the file; empty: there is no place for one
  std::string reason;  // why
};
// For a directory, links resolved: ".metal-reserve-<name>" in its parent, when that is on the same
// file system.
ReservePlace ReservePlaceOf(const std::string& directory);

// At most 1 % of the file system, or 64 MiB where that is more, but never more than a quarter of
// it.
base::ByteCount ReserveSize(const base::FilesystemRoom& room, base::ByteCount configured);

// Bytes that the file holds on the disk; 0: there is none.
absl::StatusOr<uint64_t> ReserveKept(const std::string& path);

// Makes it anew with that size, all of it allocated, so that removing it gives as much. On an error
// there is none. RESOURCE_EXHAUSTED: no room; UNIMPLEMENTED: the file system cannot allocate.
absl::Status MakeReserve(const std::string& path, base::ByteCount size);

// Removes it; the bytes that it held, 0 when there was none.
absl::StatusOr<uint64_t> GiveReserveBack(const std::string& path);

}  // namespace metal::disk
