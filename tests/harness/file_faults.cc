#include "tests/harness/file_faults.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "agent/base/check.h"
#include "agent/base/mutex.h"

namespace metal::testing {
namespace {

struct State {
  std::string directory;
  FileFault fault;
  std::vector<std::string> calls;
  std::map<int, std::string> open_files;
  std::set<std::string> unsynced;  // written and not yet fsynced
  // By new name: renames whose directory was not yet fsynced.
  struct Rename {
    std::string from;
    std::optional<std::string> replaced;  // what the new name held before
  };
  std::map<std::string, Rename> unsynced_renames;
  bool fired = false;
  bool dead = false;
};

std::atomic<bool>& Active() {
  static std::atomic<bool> active{false};
  return active;
}
base::Mutex& Lock() {
  static base::Mutex mutex;
  return mutex;
}
std::unique_ptr<State>& Current() {
  static std::unique_ptr<State> state;
  return state;
}

enum class Verdict { kPass, kFail, kShort };

// Counts one call. REQUIRES: Lock() is held and Current() is set.
Verdict Count(const std::string& what, const std::string& path) {
  State& state = *Current();
  if (state.dead) {
    errno = EIO;
    return Verdict::kFail;
  }
  state.calls.push_back(what + " " + path);
  if (static_cast<int>(state.calls.size()) != state.fault.at_call) return Verdict::kPass;
  state.fired = true;
  if (state.fault.kind == FileFaultKind::kShortWrite) return Verdict::kShort;
  state.dead = state.fault.kind == FileFaultKind::kPowerLoss;
  errno = state.dead ? EIO : state.fault.error;
  return Verdict::kFail;
}

bool Caught(const std::string& path) { return Current() && path.starts_with(Current()->directory); }

// The caught file behind a descriptor; empty when it is none.
std::string CaughtFile(int fd) {
  if (!Current()) return "";
  const auto found = Current()->open_files.find(fd);
  return found == Current()->open_files.end() ? "" : found->second;
}

// The C library's (or a sanitizer's) functions, found before main so that a forked child need not
// look.
struct RealFunctions {
  template <typename Function>
  static void Find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  }
  RealFunctions() {
    Find(open, "open");
    Find(write, "write");
    Find(pwrite, "pwrite");
    Find(fsync, "fsync");
    Find(fdatasync, "fdatasync");
    Find(fchmod, "fchmod");
    Find(close, "close");
    Find(rename, "rename");
    Find(mkdir, "mkdir");
    Find(mknod, "mknod");
    Find(unlink, "unlink");
    Find(symlink, "symlink");
    Find(syncfs, "syncfs");
  }
  int (*open)(const char*, int, ...);
  ssize_t (*write)(int, const void*, size_t);
  ssize_t (*pwrite)(int, const void*, size_t, off_t);
  int (*fsync)(int);
  int (*fdatasync)(int);
  int (*fchmod)(int, mode_t);
  int (*close)(int);
  int (*rename)(const char*, const char*);
  int (*mkdir)(const char*, mode_t);
  int (*mknod)(const char*, mode_t, dev_t);
  int (*unlink)(const char*);
  int (*symlink)(const char*, const char*);
  int (*syncfs)(int);
};
const RealFunctions& Real() {
  static const RealFunctions functions;
  return functions;
}
__attribute__((constructor)) void FindRealFunctions() { Real(); }

// A call on a descriptor: its file when it is caught, and what is to happen.
struct FileCall {
  std::string file;  // empty: not caught
  Verdict verdict = Verdict::kPass;
};
FileCall CountFileCall(const char* what, int fd) {
  FileCall call;
  if (!Active()) return call;
  const metal::base::MutexLock guard(Lock());
  call.file = CaughtFile(fd);
  if (call.file.empty()) return call;
  call.verdict = Count(what, call.file);
  if (call.verdict == Verdict::kFail) return call;
  if (std::string_view(what) == "write") Current()->unsynced.insert(call.file);
  return call;
}

int Sync(int fd, const char* name, int (*real)(int)) {
  const FileCall call = CountFileCall(name, fd);
  if (call.verdict == Verdict::kFail) return -1;
  const int result = real(fd);
  if (!call.file.empty() && result == 0) {
    const metal::base::MutexLock guard(Lock());
    Current()->unsynced.erase(call.file);
    std::erase_if(Current()->unsynced_renames, [&](const auto& rename) {
      return rename.first.substr(0, rename.first.rfind('/')) == call.file;
    });
  }
  return result;
}

// True when the call on this path is to fail.
bool FailsOnPath(const char* what, const char* path) {
  if (!Active()) return false;
  const metal::base::MutexLock guard(Lock());
  return Caught(path) && Count(what, path) == Verdict::kFail;
}

}  // namespace

FileFaults::FileFaults(std::string directory, FileFault fault) {
  const metal::base::MutexLock guard(Lock());
  METAL_CHECK(!Current());
  Current() = std::make_unique<State>();
  Current()->directory = std::move(directory);
  Current()->fault = fault;
  Active() = true;
}

FileFaults::~FileFaults() {
  const metal::base::MutexLock guard(Lock());
  const std::unique_ptr<State> state = std::move(Current());
  Active() = false;
  if (!state->dead) return;
  for (const std::string& path : state->unsynced) {
    METAL_CHECK(truncate(path.c_str(), 0) == 0 || errno == ENOENT);
  }
  for (const auto& [to, rename] : state->unsynced_renames) {
    METAL_CHECK(Real().rename(to.c_str(), rename.from.c_str()) == 0 || errno == ENOENT);
    if (rename.replaced) std::ofstream(to, std::ios::binary) << *rename.replaced;
  }
}

std::vector<std::string> FileFaults::calls() const {
  const metal::base::MutexLock guard(Lock());
  return Current()->calls;
}

bool FileFaults::fired() const {
  const metal::base::MutexLock guard(Lock());
  return Current()->fired;
}

}  // namespace metal::testing

// The caught functions. Their declarations are the C library's.
extern "C" {

int open(const char* path, int flags, ...) {
  using namespace metal::testing;
  mode_t mode = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  if (!Active()) return Real().open(path, flags, mode);
  {
    const metal::base::MutexLock guard(Lock());
    if (Caught(path) && Count("open", path) == Verdict::kFail) return -1;
  }
  const int fd = Real().open(path, flags, mode);
  const metal::base::MutexLock guard(Lock());
  if (fd >= 0 && Caught(path)) Current()->open_files[fd] = path;
  return fd;
}

ssize_t write(int fd, const void* data, size_t size) {
  using namespace metal::testing;
  const FileCall call = CountFileCall("write", fd);
  if (call.verdict == Verdict::kFail) return -1;
  if (call.verdict == Verdict::kShort && size > 1) size /= 2;
  return Real().write(fd, data, size);
}

// Bulk I/O: has faults of its own (faulty_engine.h), so it is not counted, but a power loss takes
// it.
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  using namespace metal::testing;
  if (Active()) {
    const metal::base::MutexLock guard(Lock());
    if (const std::string file = CaughtFile(fd); !file.empty()) Current()->unsynced.insert(file);
  }
  return Real().pwrite(fd, data, size, offset);
}

int fsync(int fd) { return metal::testing::Sync(fd, "fsync", metal::testing::Real().fsync); }
int fdatasync(int fd) {
  return metal::testing::Sync(fd, "fdatasync", metal::testing::Real().fdatasync);
}

int fchmod(int fd, mode_t mode) noexcept {
  using namespace metal::testing;
  if (CountFileCall("fchmod", fd).verdict == Verdict::kFail) return -1;
  return Real().fchmod(fd, mode);
}

int close(int fd) {
  using namespace metal::testing;
  const FileCall call = CountFileCall("close", fd);
  const int error = errno;
  if (!call.file.empty()) {
    const metal::base::MutexLock guard(Lock());
    Current()->open_files.erase(fd);
  }
  const int result = Real().close(fd);  // as the kernel does: closed even when it reports an error
  if (call.verdict != Verdict::kFail) return result;
  errno = error;
  return -1;
}

int rename(const char* from, const char* to) noexcept {
  using namespace metal::testing;
  if (!Active()) return Real().rename(from, to);
  {
    const metal::base::MutexLock guard(Lock());
    if (Caught(to) && Count("rename", to) == Verdict::kFail) return -1;
  }
  std::optional<std::string> replaced;
  if (std::ifstream before(to, std::ios::binary); before) {
    replaced.emplace(std::istreambuf_iterator<char>(before), std::istreambuf_iterator<char>());
  }
  const int result = Real().rename(from, to);
  const metal::base::MutexLock guard(Lock());
  if (!Caught(to) || result != 0) return result;
  if (Current()->unsynced.erase(from) != 0) Current()->unsynced.insert(to);
  Current()->unsynced_renames.try_emplace(to, from, std::move(replaced));
  return result;
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (metal::testing::FailsOnPath("mkdir", path)) return -1;
  return metal::testing::Real().mkdir(path, mode);
}

int mknod(const char* path, mode_t mode, dev_t device) noexcept {
  if (metal::testing::FailsOnPath("mknod", path)) return -1;
  return metal::testing::Real().mknod(path, mode, device);
}

int unlink(const char* path) noexcept {
  if (metal::testing::FailsOnPath("unlink", path)) return -1;
  return metal::testing::Real().unlink(path);
}

int symlink(const char* target, const char* path) noexcept {
  if (metal::testing::FailsOnPath("symlink", path)) return -1;
  return metal::testing::Real().symlink(target, path);
}

int syncfs(int fd) noexcept {
  using namespace metal::testing;
  const FileCall call = CountFileCall("syncfs", fd);
  if (call.verdict == Verdict::kFail) return -1;
  const int result = Real().syncfs(fd);
  if (!call.file.empty() && result == 0) {
    const metal::base::MutexLock guard(Lock());
    Current()->unsynced.clear();
    Current()->unsynced_renames.clear();
  }
  return result;
}

}  // extern "C"
