// A library for LD_PRELOAD that shows a program an NVMe drive made of files: /dev/nvme0 exists, and
// answers Get Log Page and Identify with what lies in the directory METAL_DRIVE_PAGES: log-02,
// identify-01 (CNS), … Bytes behind a file's end are 0; what has no file is refused as a drive
// does. Threading: as thread-safe as what these functions stand for; no state.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

constexpr std::string_view kDrive = "/dev/nvme0";
constexpr int kInvalidLogPage = 0x4109, kInvalidField = 0x4002;  // with "do not retry"

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Any character device will do: programs look at what kind of file it is.
const char* Instead(const char* path) {
  return path != nullptr && path == kDrive ? "/dev/null" : path;
}

int Answer(const std::string& name, uint64_t offset, void* to, size_t size, int refusal) {
  const char* const directory = getenv("METAL_DRIVE_PAGES");
  const std::string path = std::string(directory == nullptr ? "" : directory) + "/" + name;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return refusal;
  std::memset(to, 0, size);
  const ssize_t got = pread(fd, to, size, static_cast<off_t>(offset));
  close(fd);
  return got < 0 ? refusal : 0;
}

std::string Hex(const char* kind, uint32_t number) {
  constexpr char kDigits[] = "0123456789abcdef";
  return std::string(kind) + kDigits[(number >> 4) & 0xf] + kDigits[number & 0xf];
}

template <typename Command>
int Admin(const Command& command) {
  auto* const to = reinterpret_cast<void*>(static_cast<uintptr_t>(command.addr));
  if (command.opcode == 0x06) {
    return Answer(Hex("identify-", command.cdw10 & 0xff), 0, to, command.data_len, kInvalidField);
  }
  if (command.opcode != 0x02) return kInvalidField;
  const uint64_t offset = command.cdw12 | (uint64_t{command.cdw13} << 32);
  return Answer(Hex("log-", command.cdw10 & 0xff), offset, to, command.data_len, kInvalidLogPage);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return Next<int(const char*, int, ...)>("open")(Instead(path), flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return Next<int(const char*, int, ...)>("open64")(Instead(path), flags, mode);
}

// What the two above become when a program is compiled with checks of its arguments.
int __open_2(const char* path, int flags) {  // NOLINT: its name
  return Next<int(const char*, int)>("__open_2")(Instead(path), flags);
}

int __open64_2(const char* path, int flags) {  // NOLINT: its name
  return Next<int(const char*, int)>("__open64_2")(Instead(path), flags);
}

int stat(const char* path, struct stat* info) noexcept {
  return Next<int(const char*, struct stat*)>("stat")(Instead(path), info);
}

int stat64(const char* path, struct stat64* info) noexcept {
  return Next<int(const char*, struct stat64*)>("stat64")(Instead(path), info);
}

int ioctl(int fd, unsigned long request, ...) noexcept {  // NOLINT: as libc declares it
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  switch (request) {
    case NVME_IOCTL_ID:
      return 1;
    case NVME_IOCTL_ADMIN_CMD:
      return Admin(*static_cast<const nvme_passthru_cmd*>(argument));
    case NVME_IOCTL_ADMIN64_CMD:
      return Admin(*static_cast<const nvme_passthru_cmd64*>(argument));
    default:
      return Next<int(int, unsigned long, ...)>("ioctl")(fd, request, argument);  // NOLINT
  }
}

}  // extern "C"
