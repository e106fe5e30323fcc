// LogTail: what is appended to a file from now on, line by line, by polling, through rotation
// (another file under the name) and truncation. The file may lie on a disk that hangs: call it on a
// thread that may.
// Threading: not thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "agent/base/fd.h"

namespace metal::disk {

class LogTail {
 public:
  explicit LogTail(std::string path) : path_(std::move(path)) {}

  // Calls `on_line` with each complete line that was added since the last call, without its end,
  // at most 1 MiB of them at once. The first call skips what is there, unless the file was not: a
  // file that comes later is read from its beginning. Lines longer than 64 KiB come cut.
  void Poll(const std::function<void(std::string_view line)>& on_line);

 private:
  bool Open();
  bool IsStillTheFile() const;
  void ReadOn(const std::function<void(std::string_view)>& on_line);
  void Take(std::string_view bytes, const std::function<void(std::string_view)>& on_line);

  const std::string path_;
  base::UniqueFd file_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  uint64_t offset_ = 0;
  bool first_ = true;
  std::string line_;      // its beginning, until its end comes
  bool cutting_ = false;  // the rest of a line that was given already
};

}  // namespace metal::disk
