// ExitDeadline: ends the process when its orderly end takes too long. An orderly end joins every
// thread, and a thread that hangs in a disk is never joined; an agent that cannot be stopped cannot
// be replaced. What it does not do: PostgreSQL is another process and is not touched, and what the
// journal holds as unfinished is treated at the next start as after a crash. A thread in an
// uninterruptible sleep keeps the dead process, and its open files, until its disk answers: every
// flock is given back before either end, so that the next agent can take it.
// Threading: one thread of its own; the calls may come from any thread.
#pragma once

#include "absl/time/time.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"

namespace metal::base {

// Gives back every flock of this process, whoever holds its descriptor: only for its end. Touches
// no disk.
void ReleaseFileLocks();

class ExitDeadline {
 public:
  // Exit code of a process that was ended here.
  static constexpr int kExitCode = 70;

  // Until Served() it also watches for a SIGTERM that stays pending (blocked in every thread, taken
  // by nobody) because the start itself hangs. REQUIRES: SIGTERM is blocked.
  explicit ExitDeadline(absl::Duration limit);
  // The end was orderly.
  ~ExitDeadline();
  ExitDeadline(const ExitDeadline&) = delete;
  ExitDeadline& operator=(const ExitDeadline&) = delete;

  // The process now takes its signals by itself.
  void Served();
  // The orderly end begins: after the limit from now, or after `limit` when that is less, the
  // process writes to standard error which threads are left, and ends by _exit.
  void Begin(absl::Duration limit = absl::InfiniteDuration());

 private:
  enum class State { kStarting, kServing, kEnding, kEnded };
  void Watch();
  [[noreturn]] static void End(absl::Duration limit);

  Mutex mutex_;
  CondVar changed_;
  absl::Duration limit_ ABSL_GUARDED_BY(mutex_);
  State state_ ABSL_GUARDED_BY(mutex_) = State::kStarting;
  Thread thread_;
};

}  // namespace metal::base
