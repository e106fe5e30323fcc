#include "agent/pg/supervisor.h"

#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/control_file.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/start_progress.h"
#include "agent/pg/supervisor_action.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kReadyPoll = absl::Milliseconds(25);
constexpr absl::Duration kSampleEvery = absl::Seconds(1);
constexpr absl::Duration kRevokedStop = absl::Seconds(5);  // for each way to stop

uint64_t FileSize(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

absl::Status WriteStandbySignal(const std::string& data_dir, bool as_standby) {
  const std::string path = base::JoinPath(data_dir, "standby.signal");
  if (as_standby) {
    METAL_ASSIGN_OR_RETURN(const bool present, base::Exists(path));
    if (present) return absl::OkStatus();
    return base::WriteFileDurably(path, "", 0600);
  }
  if (unlink(path.c_str()) != 0) {
    return errno == ENOENT ? absl::OkStatus() : base::ErrnoStatus(errno, "remove", path);
  }
  return base::SyncDirectory(data_dir);
}

void BeginPhase(observe::Progress* progress, const std::string& phase) {
  if (progress != nullptr) progress->BeginPhase(phase);
}

}  // namespace

PostgresSupervisor::PostgresSupervisor(SupervisorOptions options, Install& install,
                                       observe::StatusBoard& board, observe::EventLog& events,
                                       base::Clock& clock)
    : options_(std::move(options)),
      install_(install),
      board_(board),
      events_(events),
      clock_(clock),
      policy_(options_.restart_max, options_.restart_window),
      sampler_(options_.data_dir, clock),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (options_.log_path.empty())
    options_.log_path = base::JoinPath(options_.state_dir, "postgres.log");
}

PostgresSupervisor::~PostgresSupervisor() {
  {
    base::MutexLock lock(mutex_);
    ending_ = true;
  }
  Wake();
  thread_.Join();
}

absl::StatusOr<StartResult> PostgresSupervisor::Start(const StartOptions& options) {
  METAL_ASSIGN_OR_RETURN(Action action, Action::Begin(*this, "start"));
  METAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Postmaster> running,
                         LivePostmaster(Finding::kAdopt));
  DesiredState before = desired();
  {
    base::MutexLock lock(mutex_);
    policy_.Reset();
    restart_at_.reset();
  }
  if (running) {
    METAL_RETURN_IF_ERROR(StoreDesired({true, false, before.role}));
    return StartResult{true, running->pid(), absl::ZeroDuration(), before.role};
  }
  absl::StatusOr<StartResult> result = StartServer(options);
  if (postmaster()) {
    board_.ClearFault("postgres_quarantined", "postgres");
  } else {
    METAL_RETURN_IF_ERROR(StoreDesired(before));
    if (before.quarantined) {
      PublishState(observe::PostgresState::kQuarantined, std::string(result.status().message()));
    } else {
      PublishStopped();
    }
    Emit(observe::Severity::kError, "postgres.start_failed",
         std::string(result.status().message()));
  }
  if (result.ok()) {
    Emit(observe::Severity::kInfo, "postgres.started",
         fmt::format("postgres started as process {} in {}", result->pid,
                     absl::FormatDuration(result->took)),
         {{"pid", fmt::format("{}", result->pid)},
          {"role", result->role == StartRole::kStandby ? "standby" : "primary"}});
  }
  return result;
}

absl::StatusOr<StopResult> PostgresSupervisor::Stop(const StopOptions& options,
                                                    observe::Progress* progress) {
  METAL_ASSIGN_OR_RETURN(Action action, Action::Begin(*this, "stop"));
  METAL_RETURN_IF_ERROR(StoreDesired({false, false, desired().role}));
  {
    base::MutexLock lock(mutex_);
    restart_at_.reset();
  }
  board_.ClearFault("postgres_quarantined", "postgres");
  return StopServer(options, progress);
}

absl::StatusOr<StartResult> PostgresSupervisor::Restart(const StopOptions& stop,
                                                        const StartOptions& start) {
  METAL_ASSIGN_OR_RETURN(Action action, Action::Begin(*this, "restart"));
  METAL_RETURN_IF_ERROR(StopServer(stop, start.progress).status());
  {
    base::MutexLock lock(mutex_);
    policy_.Reset();
    restart_at_.reset();
  }
  // An agent that dies from here on leaves a server that should run and is dead: its next start
  // brings it up.
  METAL_RETURN_IF_ERROR(StoreDesired({true, false, LaunchRole(start)}));
  absl::StatusOr<StartResult> result = StartServer(start);
  if (result.ok()) {
    board_.ClearFault("postgres_quarantined", "postgres");
    Emit(observe::Severity::kInfo, "postgres.started",
         fmt::format("postgres was restarted as process {}", result->pid),
         {{"pid", fmt::format("{}", result->pid)}});
  } else if (!postmaster()) {
    PublishStopped();
    Emit(observe::Severity::kError, "postgres.start_failed",
         std::string(result.status().message()));
  }
  return result;
}

absl::StatusOr<StartResult> PostgresSupervisor::Demote(const DemotionStop& stop,
                                                       const StartOptions& start) {
  METAL_ASSIGN_OR_RETURN(Action action, Action::Begin(*this, "demote"));
  METAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Postmaster> process,
                         LivePostmaster(Finding::kTakeUp));
  const DesiredState after{true, false, StartRole::kStandby};
  METAL_RETURN_IF_ERROR(StoreDesired(after));
  {
    base::MutexLock lock(mutex_);
    policy_.Reset();
    restart_at_.reset();
  }
  if (process) {
    BeginPhase(start.progress, "shutting down");
    PublishState(observe::PostgresState::kStopping, "demotion");
    METAL_RETURN_IF_ERROR(base::FaultPoint("pg.before_demotion"));
    METAL_RETURN_IF_ERROR(StopForDemotion(*process, Place(), stop, clock_));
    SetProcess(nullptr);
    PublishControl();
    METAL_RETURN_IF_ERROR(base::FaultPoint("pg.demoted"));
  }
  absl::StatusOr<StartResult> result = StartServer(start);
  if (result.ok()) {
    Emit(observe::Severity::kInfo, "postgres.started",
         fmt::format("postgres was started as a standby: process {}", result->pid),
         {{"pid", fmt::format("{}", result->pid)}, {"role", "standby"}});
  } else if (!postmaster()) {
    PublishStopped();
    Emit(observe::Severity::kError, "postgres.start_failed",
         std::string(result.status().message()));
  }
  return result;
}

absl::Status PostgresSupervisor::Reload() {
  const std::shared_ptr<const Postmaster> process = postmaster();
  if (!process) return absl::OkStatus();
  const absl::Status signalled = process->Signal(SIGHUP);
  return absl::IsNotFound(signalled) ? absl::OkStatus() : signalled;
}

absl::Status PostgresSupervisor::SetRole(StartRole role) {
  const auto store = [&]() -> absl::Status {
    base::MutexLock lock(store_mutex_);
    DesiredState state = desired();
    state.role = role;
    return StoreDesiredLocked(state);
  };
  bool settled = false;
  {
    // A crash restart that is being launched has already asked for its role: its end is awaited, so
    // that the caller sees the server that came of it.
    base::MutexLock lock(mutex_);
    const auto settle = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return action_ != kWatchAction && !first_look_due_;
    };
    settled = action_ended_.WaitFor(mutex_, WatchPatience(), settle);
  }
  METAL_RETURN_IF_ERROR(store());
  if (settled) return absl::OkStatus();
  return base::Error(absl::StatusCode::kDeadlineExceeded,
                     "postgres: the role is stored, but a restart that began before it has not "
                     "ended within {}. HINT: try again",
                     absl::FormatDuration(WatchPatience()));
}

absl::Status PostgresSupervisor::WithServerStopped(const std::string& what,
                                                   const std::function<absl::Status()>& body) {
  METAL_ASSIGN_OR_RETURN(Action action, Action::Begin(*this, what));
  METAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Postmaster> running,
                         LivePostmaster(Finding::kAdopt));
  if (running) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "{}: postgres runs on {} as process {}. HINT: metalctl pg stop", what,
                    options_.data_dir, running->pid()),
        {"POSTGRES_RUNNING", {{"pid", fmt::format("{}", running->pid())}}});
  }
  if (options_.lock_directory) METAL_RETURN_IF_ERROR(options_.lock_directory());
  METAL_RETURN_IF_ERROR(StoreDesired({false, false, desired().role}));
  {
    base::MutexLock lock(mutex_);
    restart_at_.reset();
  }
  absl::Status status = body();
  PublishStopped();
  return status;
}

absl::Status PostgresSupervisor::CheckDirectory(const PostgresVersion& version) {
  const auto check = [&]() -> absl::Status {
    METAL_ASSIGN_OR_RETURN(const DataDirectory directory, InspectDataDirectory(options_.data_dir));
    return CheckStartable(directory, version, geteuid());
  };
  const absl::Status startable = check();
  if (!LacksRoom(startable) || !options_.make_room) return startable;
  return options_.make_room() ? check() : startable;
}

absl::Status PostgresSupervisor::CheckStart(const StartOptions& options, LaunchOptions& launch) {
  METAL_ASSIGN_OR_RETURN(launch.program, install_.Program("postgres"));
  METAL_ASSIGN_OR_RETURN(const PostgresVersion version, install_.Version());
  if (options_.lock_directory) METAL_RETURN_IF_ERROR(options_.lock_directory());
  if (options_.check_drives) METAL_RETURN_IF_ERROR(options_.check_drives());
  METAL_RETURN_IF_ERROR(CheckDirectory(version));
  launch.place = Place();
  launch.lock_deadline = clock_.Monotonic() + kLockPatience;
  launch.log_path = options_.log_path;
  launch.port = options_.port;
  launch.socket_dir = options_.socket_dir;
  launch.listen_addresses = options_.listen_addresses;
  launch.cancelled = [this, progress = options.progress] {
    return ending() || (progress != nullptr && progress->cancelled());
  };
  return CheckLaunchable(launch, clock_);
}

StartRole PostgresSupervisor::LaunchRole(const StartOptions& options) {
  if (options.as_standby) return StartRole::kStandby;
  if (options_.may_be_primary && !options_.may_be_primary()) return StartRole::kStandby;
  return options_.role_for_launch ? options_.role_for_launch() : StartRole::kPrimary;
}

absl::StatusOr<std::shared_ptr<const Postmaster>> PostgresSupervisor::LaunchServer(
    const StartOptions& options) {
  BeginPhase(options.progress, "checking the data directory");
  LaunchOptions launch;
  METAL_RETURN_IF_ERROR(CheckStart(options, launch));
  if (options.prepare) METAL_RETURN_IF_ERROR(options.prepare());
  const StartRole role = LaunchRole(options);
  METAL_RETURN_IF_ERROR(WriteStandbySignal(options_.data_dir, role == StartRole::kStandby));
  METAL_RETURN_IF_ERROR(base::FaultPoint("pg.before_launch"));
  if (role == StartRole::kStandby && options_.before_standby_launch) {
    options_.before_standby_launch();
  }
  METAL_RETURN_IF_ERROR(StoreDesired({true, false, role}));
  BeginPhase(options.progress, "starting");
  PublishState(observe::PostgresState::kStarting, "");
  {
    base::MutexLock lock(mutex_);
    log_offset_ = FileSize(options_.log_path);
    launched_role_ = role;
  }
  METAL_ASSIGN_OR_RETURN(std::shared_ptr<const Postmaster> process,
                         LaunchPostmaster(launch, clock_));
  SetProcess(process);
  METAL_RETURN_IF_ERROR(base::FaultPoint("pg.after_launch"));
  MoveToScope(*process);
  PublishState(observe::PostgresState::kStarting, "");
  return process;
}

void PostgresSupervisor::MoveToScope(const Postmaster& process) {
  if (!options_.move_to_scope) return;
  const absl::Status moved = options_.move_to_scope(process.pid());
  if (moved.ok()) return;
  Emit(observe::Severity::kWarning, "postgres.scope_failed", std::string(moved.message()));
}

absl::StatusOr<StartResult> PostgresSupervisor::StartServer(const StartOptions& options) {
  const base::MonotonicTime start = clock_.Monotonic();
  std::shared_ptr<const Postmaster> process;
  for (bool ready = false; !ready;) {
    METAL_ASSIGN_OR_RETURN(process, LaunchServer(options));
    METAL_ASSIGN_OR_RETURN(ready, AwaitReady(*process, options));
  }
  PublishControl();
  PublishState(observe::PostgresState::kRunning, "");
  return StartResult{false, process->pid(), clock_.Monotonic() - start, launched_role()};
}

bool PostgresSupervisor::PrimaryRevoked() {
  if (launched_role() != StartRole::kPrimary) return false;
  return options_.may_be_primary && !options_.may_be_primary();
}

absl::Status PostgresSupervisor::StopRevoked() {
  Emit(observe::Severity::kWarning, "postgres.start_revoked",
       "the server that comes up may no longer be the primary: it is stopped and started as a "
       "standby");
  StopOptions stop;
  stop.mode = StopMode::kFast;
  stop.escalate_to = StopMode::kKill;
  stop.timeout = stop.escalation_timeout = kRevokedStop;
  return StopServer(stop, nullptr).status();
}

absl::StatusOr<bool> PostgresSupervisor::AwaitReady(const Postmaster& process,
                                                    const StartOptions& options) {
  observe::Progress* const progress = options.progress;
  const absl::Duration limit = options.no_progress_limit > absl::ZeroDuration()
                                   ? options.no_progress_limit
                                   : options_.no_progress_limit;
  StartProgressTracker tracker(limit);
  StartSampler sampler(options_.data_dir, clock_);
  base::MonotonicTime next_sample = clock_.Monotonic();
  while (true) {
    const absl::StatusOr<std::optional<PostmasterPid>> file = ReadPostmasterPid(options_.data_dir);
    if (PrimaryRevoked()) {
      METAL_RETURN_IF_ERROR(StopRevoked());
      return false;
    }
    if (file.ok() && *file && (*file)->pid == process.pid() &&
        ((*file)->status == PostmasterStatus::kReady ||
         (*file)->status == PostmasterStatus::kStandby)) {
      return true;
    }
    if (process.WaitExit(kReadyPoll)) {
      SetProcess(nullptr);
      std::string failure = LaunchFailure();
      if (failure.empty()) failure = "it ended without a message";
      const bool has_hint = failure.find("HINT") != std::string::npos;
      return base::WithReason(
          base::Error(absl::StatusCode::kFailedPrecondition, "start postgres on {}: {}{}",
                      options_.data_dir, failure,
                      has_hint ? "" : fmt::format(". HINT: see {}", options_.log_path)),
          {"POSTGRES_START_FAILED", {{"postgres_message", failure}}});
    }
    if (ending() || (progress != nullptr && progress->cancelled())) {
      return base::Error(absl::StatusCode::kCancelled,
                         "start postgres: waiting was cancelled; process {} goes on starting. "
                         "HINT: metalctl pg stop",
                         process.pid());
    }
    if (clock_.Monotonic() < next_sample) continue;
    next_sample = clock_.Monotonic() + kSampleEvery;
    tracker.Observe(sampler.Sample(process.pid()));
    board_.Update([&](observe::NodeStatus& status) {
      status.postgres.start_progress = tracker.Describe();
      status.postgres.time = {clock_.Now(), clock_.Monotonic()};
    });
    if (!tracker.exhausted()) continue;
    return base::WithReason(base::Error(absl::StatusCode::kDeadlineExceeded,
                                        "start postgres on {}: no progress for {} ({}); process {} "
                                        "is left running. HINT: see {}; a standby "
                                        "may wait for WAL that its source does not have",
                                        options_.data_dir, absl::FormatDuration(limit),
                                        tracker.Describe(), process.pid(), options_.log_path),
                            {"START_NO_PROGRESS", {{"pid", fmt::format("{}", process.pid())}}});
  }
}

std::string PostgresSupervisor::LaunchFailure() {
  uint64_t offset = 0;
  {
    base::MutexLock lock(mutex_);
    offset = log_offset_;
  }
  // A log that was rotated at the launch is shorter than before.
  return LogFailure(options_.log_path, FileSize(options_.log_path) < offset ? 0 : offset);
}

absl::StatusOr<StopResult> PostgresSupervisor::StopServer(const StopOptions& options,
                                                          observe::Progress* progress) {
  METAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Postmaster> process,
                         LivePostmaster(Finding::kTakeUp));
  if (!process) {
    PublishStopped();
    return StopResult{options.mode, absl::ZeroDuration()};
  }
  BeginPhase(progress, fmt::format("stopping ({})", StopModeName(options.mode)));
  PublishState(observe::PostgresState::kStopping,
               fmt::format("{} stop", StopModeName(options.mode)));
  METAL_RETURN_IF_ERROR(base::FaultPoint("pg.before_stop"));
  StopOptions stop = options;
  stop.cancelled = [&options, progress] {
    return (options.cancelled && options.cancelled()) ||
           (progress != nullptr && progress->cancelled());
  };
  stop.on_escalation = [&](StopMode mode) {
    BeginPhase(progress, fmt::format("stopping ({})", StopModeName(mode)));
    Emit(observe::Severity::kWarning, "postgres.stop_escalated",
         fmt::format("the stop did not end in time; {} now", StopModeName(mode)));
    if (options.on_escalation) options.on_escalation(mode);
  };
  METAL_ASSIGN_OR_RETURN(const StopResult result, StopPostmaster(*process, Place(), stop, clock_));
  SetProcess(nullptr);
  PublishStopped();
  Emit(observe::Severity::kInfo, "postgres.stopped",
       fmt::format("postgres stopped ({}) in {}", StopModeName(result.mode),
                   absl::FormatDuration(result.took)),
       {{"mode", std::string(StopModeName(result.mode))}});
  return result;
}

}  // namespace metal::pg
