// The watch thread of PostgresSupervisor.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/base/units.h"
#include "agent/pg/control_file.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/supervisor.h"
#include "agent/pg/supervisor_action.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kLook = absl::Seconds(1);
constexpr absl::Duration kStartingLook = absl::Milliseconds(100);
constexpr absl::Duration kRoomLook = absl::Seconds(5);
constexpr base::ByteCount kMoreRoom{16 * base::kMiB};

// True: the process is in this process's own cgroup. Unknown is false: then it is left where it is.
bool SharesCgroup(pid_t pid) {
  const auto ours = base::ReadFile("/proc/self/cgroup");
  const auto theirs = base::ReadFile(fmt::format("/proc/{}/cgroup", pid));
  return ours.ok() && theirs.ok() && *ours == *theirs;
}

}  // namespace

absl::Status PostgresSupervisor::Begin() {
  METAL_ASSIGN_OR_RETURN(const DesiredState state, LoadDesiredState(options_.state_dir));
  {
    base::MutexLock lock(mutex_);
    desired_ = state;
    first_look_due_ = true;
  }
  if (state.quarantined && state.running) Quarantine("it was quarantined before the agent started");
  thread_ = base::Thread("pg-watch", [this] { Watch(); });
  return absl::OkStatus();
}

void PostgresSupervisor::Watch() {
  while (!ending()) {
    WatchOnce();
    const std::shared_ptr<const Postmaster> process = postmaster();
    bool acting = false;
    {
      base::MutexLock lock(mutex_);
      acting = !action_.empty();
    }
    // While an action runs, the end of the process is its business; the end of the action wakes
    // this thread.
    const int process_fd = process && !acting ? process->pidfd() : -1;
    pollfd entries[] = {{wake_.get(), POLLIN, 0}, {process_fd, POLLIN, 0}};
    const int64_t ms = absl::ToInt64Milliseconds(NextWait());
    poll(entries, 2, static_cast<int>(std::clamp<int64_t>(ms, 0, 60'000)));
    uint64_t wakes = 0;
    if (read(wake_.get(), &wakes, sizeof wakes) < 0)
      wakes = 0;  // EAGAIN: it was the timeout or the process
  }
}

absl::Duration PostgresSupervisor::NextWait() {
  base::MutexLock lock(mutex_);
  if (process_ && !tracker_) return kLook;
  if (process_) return kStartingLook;
  if (!restart_at_) return kLook;
  return std::clamp(*restart_at_ - clock_.Monotonic(), absl::ZeroDuration(), kLook);
}

void PostgresSupervisor::WatchOnce() {
  {
    base::MutexLock lock(mutex_);
    if (!action_.empty() || ending_) return;
  }
  // Lost races against a caller are looked at again when its action ends.
  const absl::StatusOr<Action> action = Action::Begin(*this, kWatchAction);
  if (!action.ok()) return;
  bool restart = false;
  {
    base::MutexLock lock(mutex_);
    restart = !process_ && restart_at_ && clock_.Monotonic() >= *restart_at_;
  }
  const std::shared_ptr<const Postmaster> process = postmaster();
  if (process) {
    WatchLive(*process);
  } else if (restart) {
    TryRestart();
  } else {
    WatchDead();
  }
  base::MutexLock lock(mutex_);
  first_look_due_ = false;  // who waits for it is woken by the end of the action
}

void PostgresSupervisor::WatchLive(const Postmaster& process) {
  if (!process.alive()) {
    HandleExit(process);
  } else if (board_.Get()->postgres.state == observe::PostgresState::kStarting) {
    WatchStarting(process);
  }
}

// A crash restart, or a start whose caller no longer waits.
void PostgresSupervisor::WatchStarting(const Postmaster& process) {
  if (PrimaryRevoked()) return RelaunchRevoked();
  const absl::StatusOr<std::optional<PostmasterPid>> file = ReadPostmasterPid(options_.data_dir);
  if (!file.ok() || !*file) return;
  if ((*file)->status != PostmasterStatus::kReady &&
      (*file)->status != PostmasterStatus::kStandby) {
    if (!tracker_) tracker_.emplace(options_.no_progress_limit);
    const base::MonotonicTime now = clock_.Monotonic();
    if (now < next_sample_) return;
    next_sample_ = now + kLook;
    tracker_->Observe(sampler_.Sample(process.pid()));
    const std::string reason =
        tracker_->exhausted() ? fmt::format("{}; it may wait for WAL", kNoStartProgress) : "";
    board_.Update([&](observe::NodeStatus& status) {
      status.postgres.start_progress = tracker_->Describe();
      status.postgres.state_reason = reason;
      status.postgres.time = {clock_.Now(), clock_.Monotonic()};
    });
    return;
  }
  tracker_.reset();
  awaiting_room_ = false;
  room_needed_ = {};
  PublishControl();
  PublishState(observe::PostgresState::kRunning, restarting_ ? "restarted after a crash" : "");
  if (std::exchange(restarting_, false)) {
    Emit(observe::Severity::kWarning, "postgres.restarted",
         fmt::format("postgres was restarted after a crash: process {}", process.pid()),
         {{"pid", fmt::format("{}", process.pid())}});
  }
}

void PostgresSupervisor::RelaunchRevoked() {
  if (const absl::Status stopped = StopRevoked(); !stopped.ok()) {
    base::LogWarning("stop postgres: {}", std::string(stopped.message()));
    return;  // the next look tries again
  }
  tracker_.reset();
  base::MutexLock lock(mutex_);
  if (desired_.running) restart_at_ = clock_.Monotonic();
}

void PostgresSupervisor::WatchDead() {
  const absl::StatusOr<std::optional<FoundPostmaster>> found = FindPostmaster(Place());
  if (!found.ok()) {
    PublishState(observe::PostgresState::kUnknown, std::string(found.status().message()));
    return;
  }
  if (*found) {
    Adopt(**found);
    return;
  }
  DesiredState state;
  bool waiting = false;
  {
    base::MutexLock lock(mutex_);
    state = desired_;
    waiting = restart_at_.has_value();
    unwatched_ |= !seen_alive_;
  }
  if (state.quarantined || waiting) return PublishLook();
  if (!state.running) {
    PublishStopped();
    return;
  }
  if (HeldDown()) return;
  Emit(observe::Severity::kError, "postgres.crashed", "postgres should run and is dead");
  ScheduleRestart("postgres should run and is dead");
}

void PostgresSupervisor::Adopt(const FoundPostmaster& found) {
  DesiredState state = desired();
  // Somebody started a server that should not run: it is watched, and what should be follows what
  // is.
  if (!state.running || state.quarantined) {
    state.running = true;
    state.quarantined = false;
    const absl::Status stored = StoreDesired(state);
    if (!stored.ok()) base::LogWarning("adopt postgres: {}", std::string(stored.message()));
  }
  TakeUp(found);
  PublishControl();
}

void PostgresSupervisor::TakeUp(const FoundPostmaster& found) {
  {
    base::MutexLock lock(mutex_);
    restart_at_.reset();
  }
  board_.ClearFault("postgres_quarantined", "postgres");
  SetProcess(found.process);
  // The agent may have died between the launch and the move: then the server shares its fate with
  // the agent's own unit.
  if (SharesCgroup(found.process->pid())) MoveToScope(*found.process);
  const bool ready = found.file.status == PostmasterStatus::kReady ||
                     found.file.status == PostmasterStatus::kStandby;
  const bool stopping = found.file.status == PostmasterStatus::kStopping;
  PublishState(ready      ? observe::PostgresState::kRunning
               : stopping ? observe::PostgresState::kStopping
                          : observe::PostgresState::kStarting,
               "adopted");
  Emit(observe::Severity::kInfo, "postgres.adopted",
       fmt::format("running postgres was adopted: process {}", found.process->pid()),
       {{"pid", fmt::format("{}", found.process->pid())}});
}

void PostgresSupervisor::HandleExit(const Postmaster& process) {
  const pid_t pid = process.pid();
  const bool was_starting = board_.Get()->postgres.state == observe::PostgresState::kStarting;
  SetProcess(nullptr);
  tracker_.reset();
  restarting_ = false;
  if (!was_starting) unwatched_ = false;
  if (!desired().running) {
    PublishStopped();
    Emit(observe::Severity::kInfo, "postgres.stopped",
         fmt::format("postgres (process {}) has stopped", pid));
    return;
  }
  if (HeldDown()) {
    Emit(observe::Severity::kInfo, "postgres.stopped",
         fmt::format("postgres (process {}) has ended", pid));
    return;
  }
  // Before anything that reads the data disk: a crash beside a hung disk must show at once.
  PublishState(observe::PostgresState::kCrashed, fmt::format("process {} ended", pid));
  PublishControl();
  const absl::StatusOr<ControlFile> control = ReadControlFile(options_.data_dir);
  const bool clean = control.ok() && control->clean();
  std::string why =
      clean ? fmt::format("process {} was shut down by somebody else", pid)
            : fmt::format("process {} ended without a shutdown; control file: {}", pid,
                          control.ok() ? ControlStateName(control->state) : "unreadable");
  const std::string last_words = LaunchFailure();
  if (was_starting || last_words.find("PANIC") != std::string::npos) why += "; " + last_words;
  Emit(observe::Severity::kError, "postgres.crashed", why,
       {{"pid", fmt::format("{}", pid)}, {"clean", clean ? "true" : "false"}});
  if (was_starting && last_words.find("No space left on device") != std::string::npos) {
    const auto directory = InspectDataDirectory(options_.data_dir);
    if (directory.ok()) {
      room_needed_ = std::min(directory->data_free, directory->wal_free) + kMoreRoom;
    }
    return AwaitRoom(why);
  }
  ScheduleRestart(why);
}

void PostgresSupervisor::ScheduleRestart(const std::string& why) {
  std::optional<absl::Duration> delay;
  {
    base::MutexLock lock(mutex_);
    const base::MonotonicTime now = clock_.Monotonic();
    delay = policy_.NextDelay(now);
    if (delay) restart_at_ = now + *delay;
  }
  if (!delay) {
    Quarantine(fmt::format("{} restarts within {} did not help; last: {}", options_.restart_max,
                           absl::FormatDuration(options_.restart_window), why));
    return;
  }
  PublishState(observe::PostgresState::kCrashed,
               fmt::format("{}; restart in {}", why, absl::FormatDuration(*delay)));
}

// Until it has run, for a second crash meanwhile makes nothing known.
bool PostgresSupervisor::ComesBackAsStandby() {
  if (!unwatched_ || !options_.comes_back_as_standby) return false;
  if (options_.role_for_launch && options_.role_for_launch() == StartRole::kStandby) return false;
  if (!options_.comes_back_as_standby()) return false;
  Emit(observe::Severity::kWarning, "postgres.back_as_standby",
       "the primary was dead when the agent started; it comes back as a standby, for another node "
       "may lead by now. HINT: metalctl shard recover lets it follow, or lead again");
  return true;
}

void PostgresSupervisor::TryRestart() {
  DesiredState state;
  {
    base::MutexLock lock(mutex_);
    restart_at_.reset();
    state = desired_;
  }
  if (!state.running || state.quarantined || HeldDown()) return;
  StartOptions start;
  // The callback decides where there is one.
  start.as_standby =
      ComesBackAsStandby() || (!options_.role_for_launch && state.role == StartRole::kStandby);
  const absl::Status room = CheckMoreRoom();
  // Readiness is watched for by WatchStarting, so that callers can stop a long recovery.
  const absl::StatusOr<std::shared_ptr<const Postmaster>> process =
      room.ok() ? LaunchServer(start) : room;
  restarting_ = process.ok();
  if (process.ok()) tracker_.emplace(options_.no_progress_limit);
  if (process.ok() || postmaster()) return;
  if (LacksRoom(process.status())) {
    return AwaitRoom(std::string(process.status().message()));
  }
  Emit(observe::Severity::kError, "postgres.start_failed", std::string(process.status().message()));
  ScheduleRestart(std::string(process.status().message()));
}

bool PostgresSupervisor::HeldDown() {
  const std::string why = options_.held_down ? options_.held_down() : "";
  if (why.empty()) {
    held_told_ = false;
    return false;
  }
  {
    base::MutexLock lock(mutex_);
    restart_at_.reset();
  }
  PublishState(observe::PostgresState::kStopped, why);
  if (!std::exchange(held_told_, true)) {
    Emit(observe::Severity::kWarning, "postgres.held_down", why);
  }
  return true;
}

// Nothing is repaired by trying, so tries are not counted; without more room none is made.
void PostgresSupervisor::AwaitRoom(const std::string& why) {
  {
    base::MutexLock lock(mutex_);
    restart_at_ = clock_.Monotonic() + kRoomLook;
  }
  PublishState(observe::PostgresState::kCrashed, fmt::format("waits for room: {}", why));
  if (std::exchange(awaiting_room_, true)) return;
  Emit(observe::Severity::kCritical, "postgres.waits_for_room",
       fmt::format("postgres is started again as soon as there is room: {}", why));
}

bool PostgresSupervisor::LacksRoom(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  return reason && reason->reason == "NO_SPACE";
}

absl::Status PostgresSupervisor::CheckMoreRoom() {
  if (room_needed_.value == 0) return absl::OkStatus();
  const auto free = [this]() -> absl::StatusOr<base::ByteCount> {
    METAL_ASSIGN_OR_RETURN(const DataDirectory directory, InspectDataDirectory(options_.data_dir));
    return std::min(directory.data_free, directory.wal_free);
  };
  METAL_ASSIGN_OR_RETURN(base::ByteCount now, free());
  if (now < room_needed_ && options_.make_room && options_.make_room()) {
    METAL_ASSIGN_OR_RETURN(now, free());
  }
  if (now >= room_needed_) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kResourceExhausted,
                  "{} has {} free, which was not enough before; {} are waited for. HINT: free "
                  "space on its disk (never inside pg_wal by hand)",
                  options_.data_dir, now.ToString(), room_needed_.ToString()),
      {"NO_SPACE", {{"path", options_.data_dir}, {"data_directory", options_.data_dir}}});
}

void PostgresSupervisor::Quarantine(const std::string& why) {
  DesiredState state = desired();
  state.running = state.quarantined = true;
  const absl::Status stored = StoreDesired(state);
  if (!stored.ok()) base::LogWarning("quarantine postgres: {}", std::string(stored.message()));
  const std::string message =
      fmt::format("{}. HINT: see {}, then metalctl pg start", why, options_.log_path);
  PublishState(observe::PostgresState::kQuarantined, message);
  board_.RaiseFault(
      {"postgres_quarantined", "postgres", observe::Severity::kCritical, message, clock_.Now()});
  Emit(observe::Severity::kCritical, "postgres.quarantined", message);
}

}  // namespace metal::pg
