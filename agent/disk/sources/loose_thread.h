// LooseThread: a thread that works in turns and may hang in a device while it does. Its owner waits
// for its end for a short while, and then leaves it behind: it must own all it uses.
// Threading: thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"

namespace metal::disk {

class LooseThread {
 public:
  // Calls `turn` at once, then every `interval` and after each Wake, until Stop. `clock` outlives
  // the process.
  LooseThread(std::string name, absl::Duration interval, std::function<void()> turn,
              base::Clock& clock)
      : state_(std::make_shared<State>(clock)) {
    thread_ = base::Thread(std::move(name), [state = state_, interval, turn = std::move(turn)] {
      do {
        turn();
      } while (state->WaitForTurn(interval));
    });
  }
  // Waits up to 300 ms since Stop.
  ~LooseThread() {
    Stop();
    if (!state_->WaitForEnd()) thread_.Detach();
  }
  LooseThread(const LooseThread&) = delete;
  LooseThread& operator=(const LooseThread&) = delete;

  void Wake() { state_->Wake(); }
  // Tells it to end, without waiting.
  void Stop() { state_->Stop(); }

 private:
  static constexpr absl::Duration kPatience = absl::Milliseconds(300);

  class State {
   public:
    explicit State(base::Clock& clock) : clock_(clock) {}

    bool WaitForTurn(absl::Duration interval) {
      base::MutexLock lock(mutex_);
      changed_.WaitFor(mutex_, interval,
                       [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_ || woken_; });
      woken_ = false;
      if (!stopping_) return true;
      ended_ = true;
      changed_.NotifyAll();
      return false;
    }
    void Wake() {
      base::MutexLock lock(mutex_);
      woken_ = true;
      changed_.NotifyAll();
    }
    void Stop() {
      base::MutexLock lock(mutex_);
      if (!stopping_) since_ = clock_.Monotonic();
      stopping_ = true;
      changed_.NotifyAll();
    }
    bool WaitForEnd() {
      base::MutexLock lock(mutex_);
      return changed_.WaitFor(mutex_, kPatience - (clock_.Monotonic() - since_),
                              [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return ended_; });
    }

   private:
    base::Clock& clock_;
    base::Mutex mutex_;
    base::CondVar changed_;
    bool woken_ ABSL_GUARDED_BY(mutex_) = false;
    bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
    bool ended_ ABSL_GUARDED_BY(mutex_) = false;
    base::MonotonicTime since_ ABSL_GUARDED_BY(mutex_);
  };

  const std::shared_ptr<State> state_;
  base::Thread thread_;
};

}  // namespace metal::disk
