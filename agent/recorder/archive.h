// ArchiveWriter: a .tar.zst (POSIX ustar inside of one zstd frame) as a stream of bytes. Memory:
// the file that is being added, and about 4 MiB of the compressor.
// Threading: one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace metal::recorder {

// Takes the next bytes of the archive, at most 128 KiB; an error ends the archive.
using ByteSink = std::function<absl::Status(std::string_view bytes)>;

class ArchiveWriter {
 public:
  // `directory`: what all names begin with, without a slash at its end; `time`: of all files.
  ArchiveWriter(std::string directory, absl::Time time, ByteSink sink);
  ~ArchiveWriter();

  // A regular file, mode 0644. INVALID_ARGUMENT: a name that ustar cannot hold (100 bytes with the
  // directory).
  absl::Status AddFile(const std::string& name, std::string_view contents);
  // Ends the archive. Nothing may follow.
  absl::Status Finish();
  // Names given so far, without the directory.
  const std::vector<std::string>& names() const { return names_; }

 private:
  struct FreeStream {
    void operator()(void* stream) const;
  };
  absl::Status Write(std::string_view bytes, bool end = false);

  const std::string directory_;
  const absl::Time time_;
  const ByteSink sink_;
  std::unique_ptr<void, FreeStream> stream_;  // a ZSTD_CCtx
  std::vector<char> buffer_;
  std::vector<std::string> names_;
};

}  // namespace metal::recorder
