// Door: one PgBouncer, brought to what is wished of it and kept there, whatever ends in between. It
// decides nothing: what the door is to do comes with each Step. PgBouncer keeps no state of its own
// across a restart and tells little of what it has, so that a Step says everything again whenever
// it is not certain: after an adoption, a launch, or a command without an answer. All commands are
// idempotent. Threading: one thread, which owns it; a Step blocks for a few seconds at most.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/base/clock.h"
#include "agent/gate/console.h"
#include "agent/gate/door_record.h"
#include "agent/gate/nowhere.h"
#include "agent/gate/process.h"
#include "agent/gate/settings.h"

namespace metal::gate {

// What a door is to do.
struct DoorWish {
  bool open = true;  // false: nothing new passes, clients wait
  Target target;     // where it leads when it is open
  // How long waiting clients wait; a closed door refuses instead.
  Patience patience = Patience::kThroughHolds;
  uint64_t users_revision = 0;  // another one: the file of users changed
};

// What a door is, as it was last seen.
struct DoorView {
  pid_t pid = 0;
  bool running = false;      // the process lives
  bool answers = false;      // and its console answers
  bool settled = false;      // it does what the last Step wished; a held door may still be draining
  bool held = false;         // it was told to let nothing new through
  bool drained = false;      // held, and no transaction runs behind it any more
  std::string problem;       // why it is not settled; empty when it is
  int64_t clients = 0;       // connected, waiting ones included
  int64_t waiting = 0;       // clients that wait for a server
  int64_t servers = 0;       // connections to the server
  int64_t transactions = 0;  // servers that a client uses right now
  int restarts = 0;          // launches after the first one or an adoption
};

// What Steps tell besides the view.
struct DoorNews {
  std::function<void(const std::string& why)> restarted = {};  // why the one before ended
  std::function<void(const std::string& why)> lost = {};       // it ended, or stopped answering
  std::function<void()> recovered = {};                        // it answers again
};

class Door {
 public:
  // `process` and `clock` outlive the door.
  Door(DoorSettings settings, DoorProcess& process, ConsoleFactory consoles, base::Clock& clock,
       DoorNews news);

  // Does what is still to do for the wish. `interrupted`: the wish is out of date, or the end has
  // come; it is polled while a pause waits for transactions. After it the view is fresh.
  void Step(const DoorWish& wish, const std::function<bool()>& interrupted);
  const DoorView& view() const { return view_; }
  // When Step is to be called again although nothing changed; infinite future: whenever.
  base::MonotonicTime next_try() const { return next_try_; }

 private:
  bool EnsureProcess(const DoorWish& wish);
  bool LaunchProcess(const DoorWish& wish);
  bool AdoptProcess(const DoorWish& wish);
  absl::Status PrepareLaunch(const DoorWish& wish);
  absl::Status AwaitConsole();
  void PutOff();
  absl::Status Settle(const DoorWish& wish, const std::function<bool()>& interrupted);
  absl::Status SettleOpen(const DoorWish& wish, const std::function<bool()>& interrupted);
  absl::Status SettleHeld(const DoorWish& wish, const std::function<bool()>& interrupted);
  absl::Status Configure(const DoorWish& wish, const Target& target);
  absl::Status WriteIni(const std::string& text);
  absl::Status Pause(absl::Duration timeout, const std::function<bool()>& interrupted);
  absl::Status Look();
  absl::StatusOr<ConsoleRows> Command(const std::string& command, const ConsoleWait& wait);
  void Forget();  // nothing is certain of the process any more
  void Lost(const std::string& why);
  void TrimLog();

  const DoorSettings settings_;
  DoorProcess& process_;
  const ConsoleFactory consoles_;
  base::Clock& clock_;
  const DoorNews news_;

  std::unique_ptr<Console> console_;
  std::unique_ptr<Nowhere> nowhere_;
  // What PgBouncer certainly has; nullopt: not known.
  std::optional<std::string> ini_;
  std::optional<Target> leads_to_;
  std::optional<uint64_t> users_revision_;
  enum class Paused { kUnknown, kNo, kDraining, kYes };
  Paused paused_ = Paused::kUnknown;

  pid_t last_pid_ = 0;    // of the process that was held last; 0: none, or it did not start
  std::string failure_;   // why the last one ended or did not start
  bool trouble_ = false;  // news_.lost was told
  base::MonotonicTime launched_at_, next_try_;
  absl::Duration backoff_;
  DoorView view_;
};

}  // namespace metal::gate
