// Gate: this host's doors to PostgreSQL. Clients connect to a PgBouncer that the agent owns; it
// leads to the shard's primary, can be held so that clients wait instead of failing, and is led
// elsewhere. A second one may lead to the local standby for readers. What counts is
// <directory>/door, written durably before PgBouncer is told anything: a hold with its deadline
// outlives the agent and PgBouncer. PgBouncer itself outlives the agent. A hold ends at its
// deadline whether anybody asks or not; while the agent is down nobody ends it, and the next agent
// does so at its start.
// Threading: thread-safe. Orders block until the door does as told, at most for the time given; one
// keeper thread for each door, and one that writes the list of users.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/gate/door.h"
#include "agent/gate/door_record.h"
#include "agent/gate/keeper.h"
#include "agent/gate/ping.h"
#include "agent/gate/read_only.h"
#include "agent/gate/settings.h"
#include "agent/gate/users.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::gate {

struct GateOptions {
  std::string directory;  // <state_dir>/gate
  std::string program;    // path of pgbouncer
  // What is the same for all doors; directory, address and auth_file are filled in by the gate.
  DoorSettings door;
  std::string listen;            // "host:port"
  std::string read_only_listen;  // empty: no read-only door
  absl::Duration read_only_max_lag = absl::Seconds(10);
  // This host's server: where a door leads that was never told, and the read-only one always.
  Target local;
  std::string auth_file;  // the operator's; empty: the gate writes one from the server's roles
  RoleReader read_roles;  // for that
  ServerPing ping;
  std::function<void(pid_t)> move_to_scope = {};  // see PgbouncerOptions
};

struct HoldOrder {
  Orderer who;
  absl::Duration hold_for;                  // 0: as configured; not above that
  absl::Duration drain = absl::Seconds(5);  // time for transactions to end
  // When they do not end: false: give the hold up; true: hold what is new, and let them run on.
  bool keep = false;
  std::function<bool()> caller_left = {};  // polled; ends the waiting as `drain` does
};
struct HoldAnswer {
  Target leads_to;           // where it leads again when the hold runs out
  absl::Time held_until;     // wall clock
  int64_t transactions = 0;  // that still run behind the door; 0 unless `keep`
  absl::Duration took;
};

struct ReleaseOrder {
  Orderer who;
  Target target;
  absl::Duration wait = absl::Seconds(5);
  std::function<bool()> caller_left = {};
};
struct ReleaseAnswer {
  bool was_held = false;
  absl::Duration took;
};

class Gate final : private WishSource {
 public:
  // Reads <directory>/door. A damaged one is kept aside and reported; the door then leads to the
  // local server. References outlive the gate.
  static absl::StatusOr<std::unique_ptr<Gate>> Open(GateOptions options, base::Clock& clock,
                                                    observe::StatusBoard& board,
                                                    observe::EventLog& events);
  // Ends the threads; PgBouncer runs on.
  ~Gate();
  // Starts the threads, which adopt or launch PgBouncer.
  absl::Status Begin();

  // Holds all traffic; answers when nothing runs behind the door any more. Holding a held door
  // gives it the new deadline. FAILED_PRECONDITION: STALE_TERM, TERM_HELD, REQUEST_SUPERSEDED, and
  // GATE_TRANSACTIONS when transactions did not end in time: the hold was then given up, and the
  // door is as it was before. UNAVAILABLE (GATE_DOWN): PgBouncer does not run or answer; given up
  // likewise.
  absl::StatusOr<HoldAnswer> Hold(const HoldOrder& order);
  // Leads the door to the server and opens it. UNAVAILABLE (GATE_TARGET): the server does not
  // accept connections; nothing was changed. UNAVAILABLE (GATE_DOWN): the order is stored, and is
  // carried out as soon as PgBouncer answers. Other errors as Hold.
  absl::StatusOr<ReleaseAnswer> Release(const ReleaseOrder& order);

 private:
  class ReadOnlyDoor;
  Gate(GateOptions options, base::Clock& clock, observe::StatusBoard& board,
       observe::EventLog& events);
  absl::Status Load();
  absl::Status MakeDoors();
  DoorSettings SettingsOf(const std::string& directory, const Target& listen) const;
  DoorNews NewsOf(const std::string& subject);
  void Emit(observe::Severity severity, std::string type, std::string message,
            std::map<std::string, std::string> attributes = {});

  // Stores the record durably, then makes it count. The number of the order.
  absl::StatusOr<uint64_t> Take(const DoorRecord& record, base::MonotonicTime hold_end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(order_mutex_);
  absl::Status Store(const DoorRecord& record);
  void StoreExpiry();
  DoorRecord Record();
  struct Taken {
    uint64_t order = 0;
    DoorRecord before;  // as it was before the order
    base::MonotonicTime before_end;
    absl::Time held_until;
  };
  absl::StatusOr<Taken> TakeHold(const HoldOrder& order, absl::Duration hold_for);
  void GiveUp(const Taken& taken);
  // What the keeper saw of the order, once it is `done` or the time is over; nullopt: another order
  // came.
  std::optional<DoorView> Await(uint64_t order, base::MonotonicTime until,
                                const std::function<bool()>& caller_left,
                                bool (*done)(const DoorView&));
  absl::Status AwaitTarget(const ReleaseOrder& order, base::MonotonicTime until);
  void Expire() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(const DoorView& view);
  // Whether the status is to be published now: at each change of state, and else at a pace that
  // does not tire those who watch it.
  bool IsDue(uint64_t order, const DoorView& before, const DoorView& view);

  // WishSource, for the keeper of the main door.
  Wish NextWish() override;
  bool HasChanged(uint64_t order) override;
  absl::Duration UntilChange() override;
  void Saw(uint64_t order, const DoorView& view) override;

  const GateOptions options_;
  base::Clock& clock_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  Target listen_;
  std::unique_ptr<UserFile> users_;  // null: the operator's file is used

  base::Mutex order_mutex_;  // one order at a time; held while it is stored; before mutex_
  base::Mutex mutex_;
  base::CondVar seen_;
  DoorRecord record_ ABSL_GUARDED_BY(mutex_);
  uint64_t order_ ABSL_GUARDED_BY(mutex_) = 1;
  base::MonotonicTime hold_end_ ABSL_GUARDED_BY(mutex_);
  bool expiry_unsaved_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t seen_order_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t published_order_ = 0;  // of the keeper, as the next
  base::MonotonicTime published_at_;
  DoorView seen_view_ ABSL_GUARDED_BY(mutex_);

  std::unique_ptr<DoorProcess> process_;
  std::unique_ptr<Door> door_;
  std::unique_ptr<ReadOnlyDoor> read_only_;
  std::unique_ptr<Keeper> keeper_;  // the last to be made, the first to end
};

// Ends the PgBouncer that an earlier agent left behind in the directory: the door is not configured
// any more. The main door's is <state_dir>/gate, the read-only one's <state_dir>/gate/read-only.
void StopLeftDoor(const std::string& directory, observe::EventLog& events);

}  // namespace metal::gate
