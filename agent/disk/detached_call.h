// Calls that may hang in a device run on a thread of their own, and their callers stop waiting when
// patience ends. DetachedCall: at most one thread of an object exists; while an earlier call hangs,
// no new one is started. Threading: one caller at a time. DetachedCalls: at most so many threads;
// a caller waits for one that comes back. Threading: thread-safe. Both may be destroyed while calls
// hang.
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

namespace metal::disk {

template <typename T>
class DetachedCall {
 public:
  // The call's answer; nullopt when it did not come in time, or an earlier call has not come back
  // yet. `call` must own all it uses.
  std::optional<T> Run(const std::string& name, std::function<T()> call, absl::Duration patience) {
    {
      base::MutexLock lock(state_->mutex);
      if (state_->running) return std::nullopt;
      state_->running = true;
      state_->answer.reset();
    }
    base::Thread thread(name, [state = state_, call = std::move(call)] {
      T answer = call();
      base::MutexLock lock(state->mutex);
      state->answer = std::move(answer);
      state->running = false;
      state->changed.NotifyAll();
    });
    thread.Detach();
    base::MutexLock lock(state_->mutex);
    state_->changed.WaitFor(state_->mutex, patience, [this] { return !state_->running; });
    return std::exchange(state_->answer, std::nullopt);
  }

 private:
  struct State {
    base::Mutex mutex;
    base::CondVar changed;
    bool running = false;
    std::optional<T> answer;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class DetachedCalls {
 public:
  explicit DetachedCalls(int at_once) : state_(std::make_shared<State>(at_once)) {}

  // The call's answer; nullopt when it did not come in time, or all threads hang in earlier calls.
  // `call` must own all it uses.
  template <typename T>
  std::optional<T> Run(const std::string& name, std::function<T()> call, absl::Duration patience) {
    const base::MonotonicTime end = base::RealClock().Monotonic() + patience;
    if (!state_->Take(patience)) return std::nullopt;
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
    state_->changed.WaitFor(state_->mutex, end - base::RealClock().Monotonic(),
                            [&] { return answer->has_value(); });
    return std::exchange(*answer, std::nullopt);
  }

 private:
  struct State {
    explicit State(int at_once) : free(at_once) {}
    bool Take(absl::Duration patience) {
      base::MutexLock lock(mutex);
      if (!changed.WaitFor(mutex, patience, [this] { return free > 0; })) return false;
      --free;
      return true;
    }
    base::Mutex mutex;
    base::CondVar changed;
    int free;
  };
  std::shared_ptr<State> state_;
};

}  // namespace metal::disk
