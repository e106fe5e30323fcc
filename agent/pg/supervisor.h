// PostgresSupervisor: owns the postmaster's life: start, stop, adoption, detection of a crash,
// bounded restarts. The agent's own end, by SIGTERM or SIGKILL, never touches the server. It
// publishes state, pid, start time, restarts, control state and start progress of PostgresSection
// (PgMonitor publishes the rest and moves between running and unresponsive), and the events
// postgres.started, .stopped, .crashed, .restarted, .quarantined, .adopted, .start_failed,
// .start_revoked, .back_as_standby, .held_down.
// Threading: thread-safe. Start, Stop and Restart block their caller; one at a time, a second gets
// ABORTED. One watch thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/observe/event_log.h"
#include "agent/observe/progress.h"
#include "agent/observe/status_board.h"
#include "agent/pg/demotion.h"
#include "agent/pg/desired_state.h"
#include "agent/pg/install.h"
#include "agent/pg/process.h"
#include "agent/pg/restart_policy.h"
#include "agent/pg/start_progress.h"

namespace metal::pg {

struct SupervisorOptions {
  std::string data_dir;
  std::string state_dir;
  std::string log_path;  // the server's standard error; empty: <state_dir>/postgres.log
  std::string socket_dir;
  std::string listen_addresses;
  int port = 5432;
  int restart_max = 5;
  absl::Duration restart_window = absl::Minutes(10);
  absl::Duration no_progress_limit = absl::Seconds(60);
  // Moves the new postmaster into its own systemd scope; empty: it only has its own session. A
  // failure is an event, no more.
  std::function<absl::Status(pid_t)> move_to_scope;
  // Takes the lock that keeps a second agent from this data directory; asked before each launch and
  // by WithServerStopped, whose error it becomes. Empty: no lock.
  std::function<absl::Status()> lock_directory;
  // Asked directly before each launch: standby wins over what the caller wanted, for a stop or a
  // check before it may have taken hours. Also the role of a crashed server's restart. Empty: the
  // role of the last Start or SetRole. May read the data disk.
  std::function<StartRole()> role_for_launch;
  // Asked when the server that should run is dead and this agent has never seen it alive: nobody
  // watched it, and others may have gone on without it. True: it comes back as a standby, whatever
  // role_for_launch says. May read the data disk. Empty: always false.
  std::function<bool()> comes_back_as_standby;
  // Asked while a server that was launched as the primary comes up; false: it is stopped (fast,
  // immediate, kill) and launched again as a standby. Touches no disk. Empty: always true.
  std::function<bool()> may_be_primary;
  // Asked before a server that should run and is dead is started again; why it stays down, empty:
  // it does not. Then it is published as stopped, told once (postgres.held_down), and asked again
  // every second; what a caller starts is started. Touches no disk. May be empty.
  std::function<std::string()> held_down;
  // Asked before each launch whether the database's drives are the right ones; its error fails the
  // launch. May read disks. May be empty.
  std::function<absl::Status()> check_drives;
  // Asked when the data directory's disk has too little room for a launch; true: there may be more
  // now. May read and write the data disk. Empty: always false.
  std::function<bool()> make_room;
  // No server runs, and the next one is launched as a standby. Called before each such launch; must
  // not block. May be empty.
  std::function<void()> before_standby_launch;
};

// How the published state_reason of a starting server begins that makes no progress.
inline constexpr std::string_view kNoStartProgress = "no progress";

struct StartOptions {
  bool as_standby =
      true;  // writes standby.signal before the start; false: removes it (the term says primary)
  observe::Progress* progress = nullptr;                    // phases and cancellation; may be null
  absl::Duration no_progress_limit = absl::ZeroDuration();  // 0: that of SupervisorOptions
  // Writes what the server is to find in the data directory; called once all checks have passed and
  // before anything is changed. An error fails the start. May be empty.
  std::function<absl::Status()> prepare = {};
};

struct StartResult {
  bool was_running = false;  // nothing to do
  pid_t pid = 0;
  absl::Duration took;
  StartRole role = StartRole::kStandby;  // of the launch, also of a server that was running
};

class PostgresSupervisor {
 public:
  // All references outlive this. Nothing is touched before Begin.
  PostgresSupervisor(SupervisorOptions options, Install& install, observe::StatusBoard& board,
                     observe::EventLog& events, base::Clock& clock);
  // Ends the watch thread; the server runs on.
  ~PostgresSupervisor();
  PostgresSupervisor(const PostgresSupervisor&) = delete;
  PostgresSupervisor& operator=(const PostgresSupervisor&) = delete;

  // Starts the watch thread, which adopts a running server, or restarts one that should run and is
  // dead.
  absl::Status Begin();

  // Returns when the server accepts connections (or is a standby that accepts none).
  // A standby although the primary was asked for, when role_for_launch or may_be_primary say so.
  // FAILED_PRECONDITION: what CheckStartable and CheckLaunchable say, with the data directory
  // unchanged, or LaunchPostmaster. DEADLINE_EXCEEDED
  // (START_NO_PROGRESS): no progress for no_progress_limit; the server is left as it is. A running
  // server is success and is not touched: `was_running`.
  absl::StatusOr<StartResult> Start(const StartOptions& options);
  // Success when nothing runs. From now on the server should not run, also when this fails.
  absl::StatusOr<StopResult> Stop(const StopOptions& options,
                                  observe::Progress* progress = nullptr);
  absl::StatusOr<StartResult> Restart(const StopOptions& stop, const StartOptions& start);

  // Ends a primary (demotion.h) and starts it as a standby; a server that is down is only started.
  // From now on it should run as a standby, also when this fails: a shutdown that stays requested
  // is followed by a standby. Errors of StopForDemotion and of Start.
  absl::StatusOr<StartResult> Demote(const DemotionStop& stop, const StartOptions& start);

  // SIGHUP: it reads its configuration again. OK when nothing runs.
  absl::Status Reload();

  // The role with which a crashed server is started again (after a promotion: primary; before a
  // fence: standby). Durable. A crash restart under way and the first look after Begin are waited
  // for, so postmaster() afterwards is their result; DEADLINE_EXCEEDED, with the role stored, when
  // they do not end: then nobody knows whether a server is coming up in the old role.
  absl::Status SetRole(StartRole role);

  // The live postmaster, or null; null also until the first look after Begin has ended.
  std::shared_ptr<const Postmaster> postmaster();
  DesiredState desired();
  const std::string& log_path() const { return options_.log_path; }

  // Runs `body` while no start, stop or restart may happen (restore, initdb): the watch thread does
  // not restart, callers get ABORTED. FAILED_PRECONDITION when the server runs.
  absl::Status WithServerStopped(const std::string& action,
                                 const std::function<absl::Status()>& body);

 private:
  class Action;  // holds the action slot

  // The following run while the action slot is held.
  absl::StatusOr<StartResult> StartServer(const StartOptions& options);
  absl::StatusOr<std::shared_ptr<const Postmaster>> LaunchServer(const StartOptions& options);
  StartRole LaunchRole(const StartOptions& options);
  // True: the server was launched as the primary and may no longer be one.
  bool PrimaryRevoked();
  // Stops it; the next launch is a standby's.
  absl::Status StopRevoked();
  // Changes nothing; fills `launch`.
  absl::Status CheckStart(const StartOptions& options, LaunchOptions& launch);
  // CheckStartable, once more after make_room when only room is missing.
  absl::Status CheckDirectory(const PostgresVersion& version);
  // False: it may no longer be the primary and was stopped.
  absl::StatusOr<bool> AwaitReady(const Postmaster& process, const StartOptions& options);
  std::string LaunchFailure();
  absl::StatusOr<StopResult> StopServer(const StopOptions& options, observe::Progress* progress);

  // The watch thread; each look holds the action slot under the name kWatchAction, for which
  // callers wait.
  void Watch();
  void WatchOnce();
  void WatchLive(const Postmaster& process);
  void WatchStarting(const Postmaster& process);
  void RelaunchRevoked();
  void WatchDead();
  void Adopt(const FoundPostmaster& found);   // TakeUp; what should be follows what is
  void TakeUp(const FoundPostmaster& found);  // as the server of this agent, and publishes it
  void HandleExit(const Postmaster& process);
  void ScheduleRestart(const std::string& why);
  void TryRestart();
  // True: it stays down, which is published; looks at no disk.
  bool HeldDown();
  // The role that the server may come back in is the standby's alone.
  bool ComesBackAsStandby();
  // The server was not launched, or ended while it started, because its disk is full: it is tried
  // again when there is more room than then, however long that takes.
  void AwaitRoom(const std::string& why);
  static bool LacksRoom(const absl::Status& status);
  // OK, or NO_SPACE: not more than when it failed last.
  absl::Status CheckMoreRoom();
  void Quarantine(const std::string& why);
  absl::Duration NextWait();

  // What becomes of a server that an action is the first to find. kTakeUp: of one that is about to
  // be stopped; neither a store nor a look at pg_control, whose disk may hang, delays the signal.
  enum class Finding { kAdopt, kTakeUp };
  absl::StatusOr<std::shared_ptr<const Postmaster>> LivePostmaster(Finding finding);
  absl::Status StoreDesired(const DesiredState& state);
  absl::Status StoreDesiredLocked(const DesiredState& state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_mutex_);
  void SetProcess(std::shared_ptr<const Postmaster> process);
  bool ending();
  StartRole launched_role();
  void PublishState(observe::PostgresState state, const std::string& reason);
  void MoveToScope(const Postmaster& process);
  void PublishLook();  // what is published was looked at again and stands
  void PublishStopped();
  void PublishControl();
  void Emit(observe::Severity severity, const std::string& type, const std::string& message,
            std::map<std::string, std::string> attributes = {});
  PostmasterPlace Place() const { return {options_.data_dir, install_.bin_dir()}; }
  void Wake();

  SupervisorOptions options_;
  Install& install_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  base::Clock& clock_;

  base::Mutex store_mutex_;  // one writer of postgres.desired; taken before mutex_
  base::Mutex mutex_;
  std::string action_ ABSL_GUARDED_BY(mutex_);           // running action; empty: none
  bool first_look_due_ ABSL_GUARDED_BY(mutex_) = false;  // Begin ran, nobody has looked yet
  std::shared_ptr<const Postmaster> process_ ABSL_GUARDED_BY(mutex_);
  StartRole launched_role_ ABSL_GUARDED_BY(mutex_) = StartRole::kStandby;  // of the last launch
  DesiredState desired_ ABSL_GUARDED_BY(mutex_);
  RestartPolicy policy_ ABSL_GUARDED_BY(mutex_);
  std::optional<base::MonotonicTime> restart_at_ ABSL_GUARDED_BY(mutex_);
  uint64_t log_offset_ ABSL_GUARDED_BY(mutex_) =
      0;  // length of the server's log before the last launch
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;  // this object is being destroyed
  base::CondVar action_ended_;

  bool seen_alive_ ABSL_GUARDED_BY(mutex_) = false;  // a server, by this agent

  // Of the watch thread.
  bool unwatched_ = false;       // the server died unseen; until it runs again
  bool restarting_ = false;      // the server that is starting was restarted after a crash
  bool awaiting_room_ = false;   // told
  bool held_told_ = false;       // that it stays down
  base::ByteCount room_needed_;  // for the next restart, beyond what every start needs; 0: none
  std::optional<StartProgressTracker> tracker_;  // while a server starts that no caller waits for
  base::MonotonicTime next_sample_;
  StartSampler sampler_;

  base::UniqueFd wake_;  // eventfd
  base::Thread thread_;
};

}  // namespace metal::pg
