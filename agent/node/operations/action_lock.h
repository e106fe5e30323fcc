// The action lock: at most one action that changes this node at a time, named and timed.
// Not a mutex: nobody waits for it, a second taker learns who holds it and since when. The holder
// may be passed to another thread. Threading: thread-safe.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"

namespace metal::node {

class ActionLock {
 public:
  // Releases when destroyed. The lock outlives it.
  class Holder {
   public:
    Holder() = default;
    Holder(Holder&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)) {}
    Holder& operator=(Holder&& other) noexcept {
      Release();
      lock_ = std::exchange(other.lock_, nullptr);
      return *this;
    }
    ~Holder() { Release(); }
    void Release();
    bool held() const { return lock_ != nullptr; }

   private:
    friend class ActionLock;
    explicit Holder(ActionLock* lock) : lock_(lock) {}
    ActionLock* lock_ = nullptr;
  };

  explicit ActionLock(base::Clock& clock) : clock_(clock) {}

  // ABORTED, reason ACTION_IN_PROGRESS, with the holder's name, kind and age in message and
  // metadata, when it is taken. `name`: an operation's name or an RPC's; `kind`: what it does, e.g.
  // "StopPostgres".
  absl::StatusOr<Holder> TryAcquire(const std::string& name, const std::string& kind);

  struct Info {
    std::string name, kind;
    absl::Duration age;
  };
  std::optional<Info> Current() const;

 private:
  base::Clock& clock_;
  mutable base::Mutex mutex_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  std::string name_ ABSL_GUARDED_BY(mutex_), kind_ ABSL_GUARDED_BY(mutex_);
  base::MonotonicTime since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::node
