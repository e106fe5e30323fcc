#include "agent/base/exit_deadline.h"

#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <memory>
#include <string>

#include "agent/base/file.h"
#include "agent/base/log.h"

namespace metal::base {
namespace {

constexpr absl::Duration kPendingPoll = absl::Milliseconds(200);  // only until the agent serves
constexpr absl::Duration kLogPatience = absl::Milliseconds(300);
constexpr const char* kThreadName = "exit-deadline";

bool TerminationPends() {
  sigset_t pending;
  return sigpending(&pending) == 0 &&
         (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

// Names of the threads that are not this one, from procfs, which touches no disk.
std::string ThreadsLeft() {
  std::string names;
  const auto tasks = ListDirectory("/proc/self/task");
  if (!tasks.ok()) return names;
  for (const std::string& task : *tasks) {
    auto name = ReadFile("/proc/self/task/" + task + "/comm", 64);
    if (!name.ok()) continue;
    if (!name->empty() && name->back() == '\n') name->pop_back();
    if (*name == kThreadName) continue;
    names += (names.empty() ? "" : ", ") + *name;
  }
  return names;
}

struct Written {
  Mutex mutex;
  CondVar changed;
  bool done ABSL_GUARDED_BY(mutex) = false;
};

// The log may be what hangs: it is written by a thread that nobody waits for.
void WriteLast(std::string line) {
  const auto written = std::make_shared<Written>();
  Thread writer("exit-log", [written, line = std::move(line)] {
    LogError("{}", line);
    MutexLock lock(written->mutex);
    written->done = true;
    written->changed.NotifyAll();
  });
  writer.Detach();
  MutexLock lock(written->mutex);
  written->changed.WaitFor(written->mutex, kLogPatience, [&] { return written->done; });
}

}  // namespace

void ReleaseFileLocks() {
  const auto names = ListDirectory("/proc/self/fd");
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    // On a descriptor without a lock, or of the listing itself, nothing happens.
    if (fd >= 0) flock(fd, LOCK_UN);
  }
}

ExitDeadline::ExitDeadline(absl::Duration limit) : limit_(limit) {
  thread_ = Thread(kThreadName, [this] { Watch(); });
}

ExitDeadline::~ExitDeadline() {
  {
    MutexLock lock(mutex_);
    state_ = State::kEnded;
    changed_.NotifyAll();
  }
  thread_.Join();
  ReleaseFileLocks();
}

void ExitDeadline::Served() {
  MutexLock lock(mutex_);
  state_ = State::kServing;
  changed_.NotifyAll();
}

void ExitDeadline::Begin(absl::Duration limit) {
  MutexLock lock(mutex_);
  limit_ = std::min(limit_, limit);
  state_ = State::kEnding;
  changed_.NotifyAll();
}

void ExitDeadline::Watch() {
  absl::Duration limit;
  {
    MutexLock lock(mutex_);
    while (state_ == State::kStarting && !TerminationPends()) {
      changed_.WaitFor(mutex_, kPendingPoll);
    }
    while (state_ == State::kServing) changed_.Wait(mutex_);
    limit = limit_;
    changed_.WaitFor(mutex_, limit, [this] { return state_ == State::kEnded; });
    if (state_ == State::kEnded) return;
  }
  End(limit);
}

void ExitDeadline::End(absl::Duration limit) {
  WriteLast("event=exit_forced message=\"did not end within " + absl::FormatDuration(limit) +
            "; PostgreSQL runs on. HINT: a thread hangs, perhaps in a disk (metalctl disk list)\" "
            "threads=\"" +
            ThreadsLeft() + "\"");
  ReleaseFileLocks();
  _exit(kExitCode);
}

}  // namespace metal::base
