// DetachedCall: runs a call that may hang in a device on a thread of its own, and stops waiting
// when patience ends. At most one thread of an object exists: while an earlier call hangs, no new
// one is started.
// Threading: one caller at a time. The object may be destroyed while its call hangs.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
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

}  // namespace metal::disk
