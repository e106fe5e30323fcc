// ReadOnlyDoor: a PgBouncer that leads to the local standby while its lag is within the limit.
// Closed, it refuses: statements fail with query_wait_timeout within a second, instead of reading
// old data. Threading: one keeper thread; Wake from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "agent/base/clock.h"
#include "agent/gate/door.h"
#include "agent/gate/gate.h"
#include "agent/gate/keeper.h"
#include "agent/gate/read_only.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::gate {

// Of a door with these settings.
PgbouncerOptions ProcessOptionsOf(const DoorSettings& settings, const std::string& program,
                                  std::function<void(pid_t)> move_to_scope);

class Gate::ReadOnlyDoor final : private WishSource {
 public:
  struct Options {
    DoorSettings settings;
    std::string program;
    std::function<void(pid_t)> move_to_scope;
    Target local;
    absl::Duration max_lag;
    std::function<uint64_t()> users_revision;
  };
  ReadOnlyDoor(Options options, base::Clock& clock, observe::StatusBoard& board,
               observe::EventLog& events, DoorNews news);
  absl::Status Start() { return keeper_->Start(); }
  void Wake() { keeper_->Wake(); }

 private:
  Wish NextWish() override;
  bool HasChanged(uint64_t) override { return false; }  // it is judged anew at every look
  absl::Duration UntilChange() override { return absl::InfiniteDuration(); }
  void Saw(uint64_t order, const DoorView& view) override;

  const Options options_;
  base::Clock& clock_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  ReadOnlyJudge judge_;
  ReadOnlyVerdict verdict_;
  bool told_ = false;  // an event said what the verdict is
  uint64_t order_ = 0;
  std::unique_ptr<DoorProcess> process_;
  std::unique_ptr<Door> door_;
  std::unique_ptr<Keeper> keeper_;  // the last to be made, the first to end
};

}  // namespace metal::gate
