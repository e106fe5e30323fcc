// Keeper: the thread that keeps one door. It asks its source what the door is to do, steps the
// door, tells the source what it saw, and sleeps until something changes: a new order, the end of
// the process, the next look. Threading: one thread of its own; Wake from any thread.
#pragma once

#include <atomic>
#include <string>

#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/thread.h"
#include "agent/gate/door.h"

namespace metal::gate {

// Where a keeper's wishes come from. Called by the keeper's thread.
class WishSource {
 public:
  virtual ~WishSource() = default;
  struct Wish {
    DoorWish door;
    uint64_t order = 0;  // another one for each change
  };
  virtual Wish NextWish() = 0;
  // The wish is out of date.
  virtual bool HasChanged(uint64_t order) = 0;
  // The next wish may differ then, without a Wake; infinite when it will not.
  virtual absl::Duration UntilChange() = 0;
  virtual void Saw(uint64_t order, const DoorView& view) = 0;
};

class Keeper {
 public:
  // All references outlive the keeper.
  Keeper(std::string name, Door& door, DoorProcess& process, WishSource& source,
         base::Clock& clock);
  ~Keeper() { Stop(); }
  absl::Status Start();
  void Wake();
  // Ends the thread; a step that is under way ends first (a few seconds at most). The door stays.
  void Stop();

 private:
  void Run();
  void Sleep();

  const std::string name_;
  Door& door_;
  DoorProcess& process_;
  WishSource& source_;
  base::Clock& clock_;
  base::UniqueFd wake_;  // eventfd
  std::atomic<bool> stopping_{false};
  base::Thread thread_;
};

}  // namespace metal::gate
