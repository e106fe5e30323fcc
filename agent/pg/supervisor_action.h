// The supervisor's action slot: one start, stop or restart at a time. Included by supervisor*.cc
// only.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "agent/base/status.h"
#include "agent/pg/supervisor.h"

namespace metal::pg {

// The name under which the watch thread holds the slot while it looks.
inline constexpr const char* kWatchAction = "the look of the watch thread";

// The longest look is the launch of a crash restart, with the move to a scope and a bit.
inline absl::Duration WatchPatience() { return LongestLaunch() + absl::Seconds(10); }

// Holds the slot until it is destroyed.
class PostgresSupervisor::Action {
 public:
  // ABORTED (ACTION_RUNNING) with the holder's name when it is taken. A look of the watch thread is
  // waited for.
  static absl::StatusOr<Action> Begin(PostgresSupervisor& supervisor, const std::string& name) {
    base::MutexLock lock(supervisor.mutex_);
    supervisor.action_ended_.WaitFor(supervisor.mutex_, WatchPatience(),
                                     [&] { return supervisor.action_ != kWatchAction; });
    if (!supervisor.action_.empty()) {
      return base::WithReason(
          base::Error(absl::StatusCode::kAborted,
                      "postgres: {} is running. HINT: wait for it and try again",
                      supervisor.action_),
          {"ACTION_IN_PROGRESS", {{"action", supervisor.action_}}});
    }
    supervisor.action_ = name;
    return Action(supervisor);
  }
  Action(Action&& other) noexcept : supervisor_(std::exchange(other.supervisor_, nullptr)) {}
  Action& operator=(Action&&) = delete;
  ~Action() {
    if (supervisor_ == nullptr) return;
    bool woken = false;
    {
      base::MutexLock lock(supervisor_->mutex_);
      woken = supervisor_->action_ != kWatchAction;
      supervisor_->action_.clear();
    }
    supervisor_->action_ended_.NotifyAll();
    if (woken) supervisor_->Wake();
  }

 private:
  explicit Action(PostgresSupervisor& supervisor) : supervisor_(&supervisor) {}
  PostgresSupervisor* supervisor_;
};

}  // namespace metal::pg
