#include "agent/recorder/kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "agent/base/file.h"
#include "agent/base/kernel_record.h"
#include "agent/base/status.h"

namespace metal::recorder {
namespace {

constexpr const char* kPath = "/dev/kmsg";
constexpr size_t kMost = 1 << 20;

// On one line, and without what would steer a terminal.
std::string Printable(std::string_view text) {
  std::string printable;
  for (const char each : text) {
    const auto byte = static_cast<unsigned char>(each);
    if (byte < ' ' || byte == 0x7f) {
      printable += fmt::format("\\x{:02x}", byte);
    } else {
      printable += each;
    }
  }
  return printable;
}

}  // namespace

std::string KernelLogLine(std::string_view record) {
  const auto parsed = base::ParseKernelRecord(record);
  if (!parsed) return "";
  const int64_t microseconds = absl::ToInt64Microseconds(parsed->since_boot);
  return fmt::format("[{:5}.{:06}] <{}> {}\n", microseconds / 1'000'000, microseconds % 1'000'000,
                     parsed->level, Printable(parsed->text));
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
