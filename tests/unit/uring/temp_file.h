// TempFile: an unlinked scratch file with known bytes. Under TMPDIR or the build tree, so that
// O_DIRECT is likely.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "agent/base/fd.h"
#include "agent/uring/io_engine.h"
#include "gtest/gtest.h"

namespace metal::uring {

inline std::vector<std::byte> RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// The part of a parameterised test's name that says which engine it runs on.
inline std::string EngineTestName(const ::testing::TestParamInfo<EngineKind>& param) {
  switch (param.param) {
    case EngineKind::kAuto:
      return "Auto";
    case EngineKind::kIoUring:
      return "IoUring";
    case EngineKind::kThreads:
      return "Threads";
    case EngineKind::kPread:
      return "Pread";
  }
  return "Unknown";
}

class TempFile {
 public:
  explicit TempFile(size_t size, uint64_t seed = 1) : bytes_(RandomBytes(size, seed)) {
    path_ = "./metal-uring-XXXXXX";
    fd_ = base::UniqueFd(mkstemp(path_.data()));
    if (!bytes_.empty() && pwrite(fd_.get(), bytes_.data(), size, 0) != ssize_t(size)) abort();
  }
  ~TempFile() { unlink(path_.c_str()); }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;

  int fd() const { return fd_.get(); }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  // Invalid when the file system has no direct I/O.
  base::UniqueFd OpenDirect() const {
    return base::UniqueFd(open(path_.c_str(), O_RDWR | O_DIRECT));
  }
  std::vector<std::byte> Content() const {
    std::vector<std::byte> content(static_cast<size_t>(lseek(fd(), 0, SEEK_END)));
    if (pread(fd(), content.data(), content.size(), 0) != ssize_t(content.size())) abort();
    return content;
  }

 private:
  std::string path_;
  base::UniqueFd fd_;
  std::vector<std::byte> bytes_;
};

}  // namespace metal::uring
