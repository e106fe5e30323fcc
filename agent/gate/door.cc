// What if PgBouncer dies here? Everything that it was told is forgotten with it; the next Step
// finds it gone, launches it and says all of it again. While the door is held it is launched
// leading nowhere, and paused before it is given a server. What if the agent dies here? PgBouncer
// runs on as it was told last; the next agent's first Step adopts it and says everything again.
// Both: as the first, by the next agent.
#include "agent/gate/door.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::gate {
namespace {

constexpr absl::Duration kAnswer = absl::Seconds(1);  // for every command but PAUSE
constexpr absl::Duration kStart = absl::Seconds(5);   // from launch to the console's answer
constexpr absl::Duration kStartPoll = absl::Milliseconds(5);
constexpr absl::Duration kDrainSlice = absl::Milliseconds(200);
// For work under way at the former server, while all other clients wait; a host that is silent does
// not end any.
constexpr absl::Duration kRepointDrain = absl::Milliseconds(500);
constexpr absl::Duration kLoginPatience = absl::Milliseconds(50);
constexpr absl::Duration kLoginPoll = absl::Milliseconds(1);
constexpr absl::Duration kLasting =
    absl::Seconds(10);  // a process that ran for so long is no crash loop
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLongestBackoff = absl::Seconds(10);
constexpr off_t kLongestLog = 16 << 20;
constexpr base::MonotonicTime kNever{absl::InfiniteDuration()};
constexpr std::string_view kAdminDatabase = "pgbouncer";

std::string Message(const absl::Status& status) { return std::string(status.message()); }

}  // namespace

Door::Door(DoorSettings settings, DoorProcess& process, ConsoleFactory consoles, base::Clock& clock,
           DoorNews news)
    : settings_(std::move(settings)),
      process_(process),
      consoles_(std::move(consoles)),
      clock_(clock),
      news_(std::move(news)) {}

void Door::Step(const DoorWish& wish, const std::function<bool()>& interrupted) {
  next_try_ = kNever;
  view_.settled = false;
  view_.problem.clear();
  if (!EnsureProcess(wish)) return;
  absl::Status status = Settle(wish, interrupted);
  if (status.ok()) status = Look();
  if (!status.ok()) {
    Lost(process_.alive()
             ? fmt::format("pgbouncer (process {}) does not do as told: {}. HINT: look at {}, or "
                           "whether the process is stopped",
                           process_.pid(), Message(status), settings_.log_path())
             : fmt::format("pgbouncer (process {}) ended: {}", process_.pid(),
                           process_.LastWords()));
    return;
  }
  view_.answers = true;
  view_.settled = true;
  if (std::exchange(trouble_, false) && news_.recovered) news_.recovered();
  TrimLog();
}

// ---- the process ----

bool Door::EnsureProcess(const DoorWish& wish) {
  view_.running = process_.alive();
  if (view_.running) return true;
  Forget();
  view_.answers = false;
  view_.running = AdoptProcess(wish) || LaunchProcess(wish);
  view_.pid = view_.running ? process_.pid() : 0;
  return view_.running;
}

bool Door::AdoptProcess(const DoorWish& wish) {
  if (!process_.Adopt()) return false;
  last_pid_ = process_.pid();
  launched_at_ = clock_.Monotonic();
  // Where it listens is decided at its start. One that was started with other addresses is
  // replaced; its file is the old one as long as the process is, since the file is written after it
  // has ended.
  const auto old = base::ReadFile(settings_.ini_path());
  const std::string wanted = RenderIni(settings_, wish.target, wish.patience);
  if (old.ok() && LinesOfStart(*old) == LinesOfStart(wanted)) return true;
  process_.Stop();
  last_pid_ = 0;  // its successor is no restart
  return false;
}

absl::Status Door::PrepareLaunch(const DoorWish& wish) {
  Target target = wish.target;
  if (!wish.open) {
    METAL_ASSIGN_OR_RETURN(nowhere_, Nowhere::Open(settings_.directory));
    target = Nowhere::In(settings_.directory);
  }
  const std::string text = RenderIni(settings_, target, wish.patience);
  METAL_RETURN_IF_ERROR(WriteIni(text));
  METAL_RETURN_IF_ERROR(process_.Launch());
  METAL_RETURN_IF_ERROR(base::FaultPoint("gate.launched"));
  ini_ = text;
  leads_to_ = target;
  users_revision_ = wish.users_revision;
  // A held door is paused before anything passes; an open one starts unpaused.
  paused_ = wish.open ? Paused::kNo : Paused::kUnknown;
  return AwaitConsole();
}

bool Door::LaunchProcess(const DoorWish& wish) {
  const base::MonotonicTime now = clock_.Monotonic();
  if (last_pid_ != 0) {
    const std::string words = process_.LastWords();
    failure_ =
        fmt::format("pgbouncer (process {}) ended{}", last_pid_, words.empty() ? "" : ": " + words);
    if (now - launched_at_ >= kLasting) backoff_ = absl::ZeroDuration();
  }
  if (now - launched_at_ < backoff_) {
    PutOff();
    return false;
  }
  launched_at_ = now;
  backoff_ = std::clamp(backoff_ * 2, kFirstBackoff, kLongestBackoff);
  last_pid_ = 0;
  if (const absl::Status launched = PrepareLaunch(wish); !launched.ok()) {
    failure_ = fmt::format("pgbouncer does not start: {}{}", Message(launched),
                           absl::IsNotFound(launched)
                               ? ". HINT: install Debian's package pgbouncer, or set gate.pgbouncer"
                               : "");
    PutOff();
    return false;
  }
  last_pid_ = process_.pid();
  const std::string why = std::exchange(failure_, "");
  if (why.empty()) return true;
  ++view_.restarts;
  if (news_.restarted) news_.restarted(why);
  return true;
}

absl::Status Door::AwaitConsole() {
  const base::MonotonicTime deadline = clock_.Monotonic() + kStart;
  while (true) {
    auto console = consoles_(kAnswer);
    if (console.ok()) {
      console_ = *std::move(console);
      return absl::OkStatus();
    }
    if (!process_.alive()) {
      return base::Error(absl::StatusCode::kFailedPrecondition,
                         "it ended at once: {}. HINT: see {}", process_.LastWords(),
                         settings_.log_path());
    }
    // It runs and may answer later: that is for the next Step.
    if (clock_.Monotonic() >= deadline) return absl::OkStatus();
    clock_.Sleep(kStartPoll);
  }
}

void Door::PutOff() {
  next_try_ = launched_at_ + backoff_;
  Lost(fmt::format("tried again {} after the last try: {}", absl::FormatDuration(backoff_),
                   failure_));
}

void Door::Forget() {
  console_.reset();
  ini_.reset();
  leads_to_.reset();
  users_revision_.reset();
  paused_ = Paused::kUnknown;
}

void Door::Lost(const std::string& why) {
  Forget();
  view_.answers = false;
  view_.running = process_.alive();
  view_.pid = view_.running ? process_.pid() : 0;
  view_.problem = why;
  view_.held = view_.drained = false;
  view_.clients = view_.waiting = view_.servers = view_.transactions = 0;
  if (!std::exchange(trouble_, true) && news_.lost) news_.lost(why);
}

// ---- what it is told ----

absl::StatusOr<ConsoleRows> Door::Command(const std::string& command, const ConsoleWait& wait) {
  if (console_ == nullptr || !console_->connected()) {
    METAL_ASSIGN_OR_RETURN(console_, consoles_(kAnswer));
  }
  return console_->Run(command, wait);
}

absl::Status Door::Settle(const DoorWish& wish, const std::function<bool()>& interrupted) {
  return wish.open ? SettleOpen(wish, interrupted) : SettleHeld(wish, interrupted);
}

absl::Status Door::SettleOpen(const DoorWish& wish, const std::function<bool()>& interrupted) {
  const bool moves = leads_to_ && *leads_to_ != wish.target;
  if (moves && paused_ == Paused::kNo) METAL_RETURN_IF_ERROR(Pause(kRepointDrain, interrupted));
  // Whoever is still at work on the former server goes on there until its transaction ends; then
  // the connection is closed. A drained door has no connections.
  const bool drained = paused_ == Paused::kYes || paused_ == Paused::kNo;
  METAL_RETURN_IF_ERROR(Configure(wish, wish.target));
  if (!drained) METAL_RETURN_IF_ERROR(Command("RECONNECT", {kAnswer}).status());
  if (paused_ != Paused::kNo) {
    const auto resumed = Command("RESUME", {kAnswer});
    // It was not paused: that is what is wanted.
    if (!resumed.ok() && !absl::IsFailedPrecondition(resumed.status())) return resumed.status();
    paused_ = Paused::kNo;
  }
  nowhere_.reset();
  view_.held = view_.drained = false;
  return absl::OkStatus();
}

absl::Status Door::SettleHeld(const DoorWish& wish, const std::function<bool()>& interrupted) {
  if (paused_ == Paused::kUnknown || paused_ == Paused::kNo)
    METAL_RETURN_IF_ERROR(Pause(kDrainSlice, interrupted));
  METAL_RETURN_IF_ERROR(Configure(wish, leads_to_.value_or(wish.target)));
  if (paused_ == Paused::kDraining) {
    METAL_RETURN_IF_ERROR(Look());
    // Told to pause, PgBouncer gives no client a server any more: none is left means none comes.
    if (view_.transactions == 0) paused_ = Paused::kYes;
  }
  if (paused_ == Paused::kYes) nowhere_.reset();
  view_.held = true;
  view_.drained = paused_ == Paused::kYes;
  return absl::OkStatus();
}

absl::Status Door::Pause(absl::Duration timeout, const std::function<bool()>& interrupted) {
  // A pause cuts off a login at the server, and PgBouncer 1.18 then turns clients away until the
  // next login has succeeded, as if the server were down. Logins take milliseconds: let them end.
  const base::MonotonicTime deadline = clock_.Monotonic() + kLoginPatience;
  while (leads_to_ != Nowhere::In(settings_.directory)) {
    METAL_ASSIGN_OR_RETURN(const ConsoleRows pools, Command("SHOW POOLS", {kAnswer}));
    int64_t logins = 0;
    for (size_t row = 0; row < pools.rows.size(); ++row) logins += pools.Number(row, "sv_login");
    if (logins == 0 || clock_.Monotonic() >= deadline) break;
    clock_.Sleep(kLoginPoll);
  }
  const auto paused = Command("PAUSE", {timeout, interrupted});
  if (paused.ok()) {
    paused_ = Paused::kYes;
    return base::FaultPoint("gate.paused");
  }
  // FAILED_PRECONDITION: it was told so before. Without an answer it is either draining or frozen;
  // whoever looks next learns which.
  if (!absl::IsFailedPrecondition(paused.status()) && !absl::IsDeadlineExceeded(paused.status()) &&
      !absl::IsCancelled(paused.status())) {
    return paused.status();
  }
  paused_ = Paused::kDraining;
  return Look();
}

absl::Status Door::Configure(const DoorWish& wish, const Target& target) {
  const std::string text = RenderIni(settings_, target, wish.patience);
  if (ini_ == text && users_revision_ == wish.users_revision) return absl::OkStatus();
  if (ini_ != text) METAL_RETURN_IF_ERROR(WriteIni(text));
  METAL_RETURN_IF_ERROR(Command("RELOAD", {kAnswer}).status());
  METAL_RETURN_IF_ERROR(base::FaultPoint("gate.reloaded"));
  ini_ = text;
  leads_to_ = target;
  users_revision_ = wish.users_revision;
  return absl::OkStatus();
}

// Whole or not at all, but not synced: after a loss of power nothing runs that could have read it,
// and it is written again before PgBouncer starts.
absl::Status Door::WriteIni(const std::string& text) {
  const std::string path = settings_.ini_path();
  const std::string temporary = path + ".new";
  METAL_ASSIGN_OR_RETURN(base::UniqueFd file,
                         base::OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  METAL_RETURN_IF_ERROR(base::WriteAll(file.get(), text, temporary));
  METAL_RETURN_IF_ERROR(file.Close());
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return base::ErrnoStatus(errno, "rename to", path);
  return absl::OkStatus();
}

// ---- what it does ----

absl::Status Door::Look() {
  METAL_ASSIGN_OR_RETURN(const ConsoleRows pools, Command("SHOW POOLS", {kAnswer}));
  view_.clients = view_.waiting = view_.servers = view_.transactions = 0;
  for (size_t row = 0; row < pools.rows.size(); ++row) {
    if (pools.Text(row, "database") == kAdminDatabase) continue;
    view_.waiting += pools.Number(row, "cl_waiting");
    view_.clients += pools.Number(row, "cl_active") + pools.Number(row, "cl_waiting");
    const int64_t busy = pools.Number(row, "sv_active") + pools.Number(row, "sv_tested");
    view_.transactions += busy;
    view_.servers += busy + pools.Number(row, "sv_idle") + pools.Number(row, "sv_used");
  }
  return absl::OkStatus();
}

void Door::TrimLog() {
  struct stat info;
  const std::string path = settings_.log_path();
  if (::stat(path.c_str(), &info) != 0 || info.st_size <= kLongestLog) return;
  // One old file is kept; PgBouncer opens the new one at a RELOAD, which an unknown file brings
  // about.
  if (::rename(path.c_str(), (path + ".1").c_str()) == 0) ini_.reset();
}

}  // namespace metal::gate
