// Calls that may hang with a disk run on a thread of their own; whoever asked waits only so long,
// and stops at once when it is told to. Threading: thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"

namespace metal::recorder {

// Waits for `condition` (with the mutex held) up to `patience`; looks every 50 ms whether `stop`
// (may be null) says that the caller must go. True: the condition holds.
template <typename Condition>
bool WaitPatiently(base::Mutex& mutex, base::CondVar& changed, absl::Duration patience,
                   const std::function<bool()>& stop, Condition condition)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  const base::MonotonicTime end = base::RealClock().Monotonic() + patience;
  while (!condition()) {
    const absl::Duration left = end - base::RealClock().Monotonic();
    if (left <= absl::ZeroDuration() || (stop && stop())) return false;
    changed.WaitFor(mutex, std::min(left, absl::Milliseconds(50)));
  }
  return true;
}

// At most so many threads; may be destroyed while calls hang.
class PatientCalls {
 public:
  explicit PatientCalls(int most) : state_(std::make_shared<State>()) { state_->free = most; }

  // The call's answer; nullopt when it did not come in time, or as many as may be hang in earlier
  // calls. `call` must own all it uses.
  template <typename T>
  std::optional<T> Run(const std::string& name, std::function<T()> call, absl::Duration patience,
                       const std::function<bool()>& stop) {
    {
      base::MutexLock lock(state_->mutex);
      if (state_->free == 0) return std::nullopt;
      --state_->free;
    }
    const auto answer = std::make_shared<std::optional<T>>();
    base::Thread thread(name, [state = state_, answer, call = std::move(call)] {
      std::optional<T> given = call();
      base::MutexLock lock(state->mutex);
      *answer = std::move(given);
      ++state->free;
      state->changed.NotifyAll();
    });
    thread.Detach();
    base::MutexLock lock(state_->mutex);
    WaitPatiently(state_->mutex, state_->changed, patience, stop,
                  [&] { return answer->has_value(); });
    return std::exchange(*answer, std::nullopt);
  }

 private:
  struct State {
    base::Mutex mutex;
    base::CondVar changed;
    int free = 0;
  };
  std::shared_ptr<State> state_;
};

}  // namespace metal::recorder
