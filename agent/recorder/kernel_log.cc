#include "agent/recorder/kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "absl/strings/numbers.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::recorder {
namespace {

constexpr const char* kPath = "/dev/kmsg";
constexpr size_t kMost = 1 << 20;

}  // namespace

std::string KernelLogLine(std::string_view record) {
  const size_t text = record.find(';');
  const size_t first = record.find(',');
  const size_t second = first == std::string_view::npos ? first : record.find(',', first + 1);
  const size_t third = second == std::string_view::npos ? second : record.find(',', second + 1);
  if (text == std::string_view::npos || third == std::string_view::npos || third > text) return "";
  const std::string_view level = record.substr(0, first);
  const std::string_view time = record.substr(second + 1, third - second - 1);
  uint64_t microseconds = 0;
  if (!absl::SimpleAtoi(absl::string_view(time.data(), time.size()), &microseconds)) return "";
  std::string_view line = record.substr(text + 1);
  line = line.substr(0, line.find('\n'));
  return fmt::format("[{:5}.{:06}] <{}> {}\n", microseconds / 1'000'000, microseconds % 1'000'000,
                     level, line);
}

namespace {

absl::StatusOr<std::string> ReadAll(const base::UniqueFd& fd) {
  if (::lseek(fd.get(), 0, SEEK_SET) < 0) return base::ErrnoStatus(errno, "seek in", kPath);
  std::string text;
  std::array<char, 8192> record;  // one a read, whole
  while (true) {
    const ssize_t got = ::read(fd.get(), record.data(), record.size());
    if (got < 0 && (errno == EPIPE || errno == EINTR)) continue;  // overwritten: the next one
    if (got < 0 && errno == EAGAIN) break;
    if (got < 0) return base::ErrnoStatus(errno, "read", kPath);
    if (got == 0) break;
    text += KernelLogLine({record.data(), static_cast<size_t>(got)});
    if (text.size() > 2 * kMost) text.erase(0, text.find('\n', kMost) + 1);
  }
  if (text.size() > kMost) text.erase(0, text.find('\n', text.size() - kMost) + 1);
  return text;
}

}  // namespace

ReadKernelLog KernelLogReader() {
  auto opened = base::OpenFile(kPath, O_RDONLY | O_NONBLOCK);
  if (!opened.ok()) return [status = opened.status()] { return status; };
  return [fd = std::make_shared<const base::UniqueFd>(*std::move(opened))] { return ReadAll(*fd); };
}

}  // namespace metal::recorder
