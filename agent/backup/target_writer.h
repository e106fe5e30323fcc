// TargetWriter: the files of a restore that are too large for one frame: created and preallocated,
// written in parts from aligned buffers with O_DIRECT, trimmed and closed. Falls back to the page
// cache per file where O_DIRECT is not possible. Threading: the ring thread, which also submits the
// requests.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/unpack_job.h"
#include "agent/base/fd.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

class TargetWriter {
 public:
  // An empty path makes a writer that is never used (verify).
  static absl::StatusOr<TargetWriter> Create(const std::string& directory);

  // Creates the file, which must not exist. RESOURCE_EXHAUSTED/NO_SPACE when it cannot be
  // preallocated.
  absl::Status Open(TargetFile& file);
  // The request that writes the piece from its decoded frame.
  uring::IoRequest* Write(UnpackPiece& piece);
  // Takes the finished request; false: it is to be submitted again (a short write, or O_DIRECT is
  // refused).
  absl::StatusOr<bool> Complete(UnpackPiece& piece);
  // All pieces are written: sets size, mode and time. Not synced.
  absl::Status Close(TargetFile& file);

  int directory() const { return directory_.valid() ? directory_.get() : -1; }

 private:
  TargetWriter(std::string path, base::UniqueFd directory)
      : path_(std::move(path)), directory_(std::move(directory)) {}

  std::string path_;
  base::UniqueFd directory_;
};

// Writes a whole small file below the open directory, through the page cache; it must not exist.
// Not synced. Any thread.
absl::Status WriteSmallFile(int directory, const FileEntry& entry,
                            std::span<const std::byte> bytes);

// Adds the reason NO_SPACE to RESOURCE_EXHAUSTED.
absl::Status WithSpaceReason(absl::Status status, const std::string& path);

// Switches O_DIRECT off for an open file.
bool ClearDirect(int fd);

}  // namespace metal::backup
