#include "agent/disk/sources/log_tail.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace metal::disk {
namespace {

constexpr size_t kMostAtOnce = 1 << 20;
constexpr size_t kLongestLine = 64 << 10;

}  // namespace

bool LogTail::Open() {
  file_ = base::UniqueFd(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!file_.valid() || fstat(file_.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    file_.Reset();
    return false;
  }
  device_ = info.st_dev;
  inode_ = info.st_ino;
  offset_ = std::exchange(first_, false) ? static_cast<uint64_t>(info.st_size) : 0;
  line_.clear();
  cutting_ = false;
  return true;
}

bool LogTail::IsStillTheFile() const {
  struct stat info {};
  return stat(path_.c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_;
}

void LogTail::Poll(const std::function<void(std::string_view)>& on_line) {
  if (!file_.valid() && !Open()) {
    first_ = false;
    return;
  }
  ReadOn(on_line);
  if (IsStillTheFile()) return;
  ReadOn(on_line);  // what came between the last read and the rename
  if (Open()) ReadOn(on_line);
}

void LogTail::ReadOn(const std::function<void(std::string_view)>& on_line) {
  struct stat info {};
  if (fstat(file_.get(), &info) != 0) return;
  if (static_cast<uint64_t>(info.st_size) < offset_) {  // truncated: begins anew
    offset_ = 0;
    line_.clear();
    cutting_ = false;
  }
  std::array<char, 16384> buffer;
  for (size_t taken = 0; taken < kMostAtOnce;) {
    const ssize_t got =
        pread(file_.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset_));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;
    offset_ += static_cast<uint64_t>(got);
    taken += static_cast<size_t>(got);
    Take({buffer.data(), static_cast<size_t>(got)}, on_line);
  }
}

void LogTail::Take(std::string_view bytes, const std::function<void(std::string_view)>& on_line) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    if (!cutting_) line_ += part.substr(0, kLongestLine - line_.size());
    bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
    const bool full = line_.size() >= kLongestLine;
    if (end == std::string_view::npos && !full) return;
    if (!cutting_) on_line(line_);
    line_.clear();
    cutting_ = end == std::string_view::npos;
  }
}

}  // namespace metal::disk
