#include "agent/gate/gate.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/gate/news.h"
#include "agent/gate/read_only_door.h"

namespace metal::gate {
namespace {

constexpr absl::Duration kWaitSlice = absl::Milliseconds(100);
constexpr absl::Duration kPingPause = absl::Milliseconds(20);
constexpr absl::Duration kLongestWait = absl::Minutes(10);
constexpr absl::Duration kPublish = absl::Milliseconds(400);
constexpr absl::Duration kSight = absl::Seconds(1);
constexpr absl::Duration kGiveUpPatience = absl::Seconds(3);
constexpr base::MonotonicTime kNever{absl::InfiniteDuration()};

absl::Status CheckWait(std::string_view what, absl::Duration wait) {
  if (wait > absl::ZeroDuration() && wait <= kLongestWait) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "{} is {}. HINT: above 0, at most 10 min; leave it unset for the default",
                     what, absl::FormatDuration(wait));
}

absl::Status Superseded(std::string_view what) {
  return base::WithReason(
      base::Error(
          absl::StatusCode::kFailedPrecondition,
          "{}: the door was told otherwise meanwhile, or the hold has run out. HINT: look at "
          "metalctl gate status, and order it anew with a new request_id",
          what),
      {.reason = "REQUEST_SUPERSEDED", .metadata = {}});
}

absl::Status Down(std::string_view what, const DoorView& view, std::string_view then) {
  return base::WithReason(
      base::Error(absl::StatusCode::kUnavailable, "{}: {}; {}", what,
                  view.problem.empty() ? "pgbouncer was not seen in time" : view.problem, then),
      {.reason = "GATE_DOWN", .metadata = {{"pid", fmt::format("{}", view.pid)}}});
}

bool IsOpen(const DoorView& view) { return view.settled && !view.held; }
bool IsDrained(const DoorView& view) { return view.settled && view.drained; }

}  // namespace

absl::StatusOr<std::unique_ptr<Gate>> Gate::Open(GateOptions options, base::Clock& clock,
                                                 observe::StatusBoard& board,
                                                 observe::EventLog& events) {
  std::unique_ptr<Gate> gate(new Gate(std::move(options), clock, board, events));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(gate->options_.directory, 0700));
  METAL_RETURN_IF_ERROR(gate->Load());
  METAL_RETURN_IF_ERROR(gate->MakeDoors());
  return gate;
}

Gate::Gate(GateOptions options, base::Clock& clock, observe::StatusBoard& board,
           observe::EventLog& events)
    : options_(std::move(options)),
      clock_(clock),
      board_(board),
      events_(events),
      hold_end_(kNever) {}

Gate::~Gate() {
  if (keeper_ != nullptr) keeper_->Stop();
  users_.reset();
  read_only_.reset();
}

absl::Status Gate::Load() {
  const std::string path = options_.directory + "/door";
  base::MutexLock lock(mutex_);
  record_.target = options_.local;
  const auto text = base::ReadFile(path);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (!text.ok()) return base::Annotate(text.status(), "read what the door was told");
  auto record = DecodeDoorRecord(*text);
  if (!record.ok()) {
    const std::string aside = path + ".damaged";
    if (::rename(path.c_str(), aside.c_str()) != 0)
      return base::ErrnoStatus(errno, "move aside", path);
    Emit(observe::Severity::kError, "gate.record_damaged",
         fmt::format("{}; kept as {}. The door leads to the local server. HINT: metalctl gate "
                     "release leads it to the primary",
                     std::string(record.status().message()), aside));
    return absl::OkStatus();
  }
  record_ = *std::move(record);
  if (record_.held) hold_end_ = clock_.Monotonic() + HoldLeft(record_, clock_.Now());
  return absl::OkStatus();
}

DoorSettings Gate::SettingsOf(const std::string& directory, const Target& listen) const {
  DoorSettings settings = options_.door;
  settings.directory = directory;
  settings.listen_host = listen.host;
  settings.listen_port = listen.port;
  settings.auth_file =
      options_.auth_file.empty() ? options_.directory + "/userlist.txt" : options_.auth_file;
  return settings;
}

absl::Status Gate::MakeDoors() {
  METAL_ASSIGN_OR_RETURN(listen_, ParseListen(options_.listen));
  const DoorSettings settings = SettingsOf(options_.directory, listen_);
  process_ = MakePgbouncer(ProcessOptionsOf(settings, options_.program, options_.move_to_scope));
  door_ = std::make_unique<Door>(settings, *process_,
                                 LibpqConsoles(settings.directory, settings.listen_port), clock_,
                                 NewsOf("gate"));
  WishSource& source = *this;
  keeper_ = std::make_unique<Keeper>("gate", *door_, *process_, source, clock_);
  if (!options_.read_only_listen.empty()) {
    METAL_ASSIGN_OR_RETURN(const Target listen, ParseListen(options_.read_only_listen));
    const std::string directory = options_.directory + "/read-only";
    METAL_RETURN_IF_ERROR(base::MakeDirectories(directory, 0700));
    read_only_ = std::make_unique<ReadOnlyDoor>(
        ReadOnlyDoor::Options{SettingsOf(directory, listen), options_.program,
                              options_.move_to_scope, options_.local, options_.read_only_max_lag,
                              [this] { return users_ == nullptr ? 0 : users_->revision(); }},
        clock_, board_, events_, NewsOf("gate.read_only"));
  }
  if (!options_.auth_file.empty()) return absl::OkStatus();
  UserFile::Options users;
  users.path = settings.auth_file;
  users.without_password = options_.door.auth_type == "trust";
  users.read = options_.read_roles;
  users.changed = [this] {
    keeper_->Wake();
    if (read_only_ != nullptr) read_only_->Wake();
  };
  users_ = std::make_unique<UserFile>(std::move(users));
  return absl::OkStatus();
}

absl::Status Gate::Begin() {
  DoorView unseen;
  unseen.problem = "pgbouncer was not looked at yet";
  Publish(unseen);
  if (users_ != nullptr) METAL_RETURN_IF_ERROR(users_->Start());
  METAL_RETURN_IF_ERROR(keeper_->Start());
  if (read_only_ != nullptr) return read_only_->Start();
  StopLeftDoor(options_.directory + "/read-only", events_);
  return absl::OkStatus();
}

// ---- orders ----

DoorRecord Gate::Record() {
  base::MutexLock lock(mutex_);
  return record_;
}

absl::Status Gate::Store(const DoorRecord& record) {
  return base::WriteFileDurably(options_.directory + "/door", EncodeDoorRecord(record), 0600);
}

absl::StatusOr<uint64_t> Gate::Take(const DoorRecord& record, base::MonotonicTime hold_end) {
  METAL_RETURN_IF_ERROR(base::Annotate(Store(record), "store the order to the door"));
  METAL_RETURN_IF_ERROR(base::FaultPoint("gate.order_stored"));
  uint64_t order = 0;
  {
    base::MutexLock lock(mutex_);
    record_ = record;
    hold_end_ = hold_end;
    expiry_unsaved_ = false;
    order = ++order_;
  }
  keeper_->Wake();
  return order;
}

absl::StatusOr<Gate::Taken> Gate::TakeHold(const HoldOrder& order, absl::Duration hold_for) {
  base::MutexLock orders(order_mutex_);
  Taken taken;
  {
    base::MutexLock lock(mutex_);
    taken.before = record_;
    taken.before_end = hold_end_;
    taken.order = order_;
  }
  METAL_RETURN_IF_ERROR(CheckOrder(taken.before, order.who));
  if (WasAsked(taken.before, order.who.request_id) == Asked::kLast) {
    if (!taken.before.held) return Superseded("hold");
    taken.held_until = taken.before.held_until;
    return taken;
  }
  const DoorRecord next = ApplyHold(taken.before, order.who, hold_for, clock_.Now());
  taken.held_until = next.held_until;
  METAL_ASSIGN_OR_RETURN(taken.order, Take(next, clock_.Monotonic() + hold_for));
  return taken;
}

// Nobody knows of the hold any more: the door becomes what it was before it, unless another order
// came.
void Gate::GiveUp(const Taken& taken) {
  base::MutexLock orders(order_mutex_);
  DoorRecord record = Record();
  {
    base::MutexLock lock(mutex_);
    if (order_ != taken.order) return;
  }
  record.held = taken.before.held;
  record.held_since = taken.before.held_since;
  record.held_until = taken.before.held_until;
  record.held_for = taken.before.held_for;
  Emit(observe::Severity::kWarning, "gate.hold_given_up",
       fmt::format("the hold of {} in term {} was given up", record.orchestrator_id, record.term));
  if (Take(record, taken.before.held ? taken.before_end : kNever).ok()) return;
  // It cannot be stored: what counts here is what was promised to the caller. After a restart the
  // stored hold ends at its deadline.
  base::MutexLock lock(mutex_);
  record_ = record;
  hold_end_ = taken.before.held ? taken.before_end : kNever;
  ++order_;
  keeper_->Wake();
}

absl::StatusOr<HoldAnswer> Gate::Hold(const HoldOrder& order) {
  const base::MonotonicTime start = clock_.Monotonic();
  const absl::Duration hold_for =
      order.hold_for == absl::ZeroDuration() ? options_.door.hold_max : order.hold_for;
  if (hold_for <= absl::ZeroDuration() || hold_for > options_.door.hold_max) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "hold for {}: a hold lasts at most {}. HINT: gate.hold_max of the "
                       "configuration is the limit",
                       absl::FormatDuration(hold_for),
                       absl::FormatDuration(options_.door.hold_max));
  }
  METAL_RETURN_IF_ERROR(CheckWait("the time for transactions to end", order.drain));
  METAL_ASSIGN_OR_RETURN(const Taken taken, TakeHold(order, hold_for));
  const auto view = Await(taken.order, start + order.drain, order.caller_left, IsDrained);
  if (!view) return Superseded("hold");
  HoldAnswer answer{taken.before.target, taken.held_until, view->transactions,
                    clock_.Monotonic() - start};
  const bool holds = view->settled && view->held;
  if (holds && (view->drained || order.keep)) {
    Emit(observe::Severity::kInfo, "gate.held",
         fmt::format(
             "{} holds the door in term {} for {}{}", order.who.orchestrator_id, order.who.term,
             absl::FormatDuration(hold_for),
             view->drained ? "" : fmt::format("; {} transactions still run", view->transactions)),
         {{"took_ms", fmt::format("{}", absl::ToInt64Milliseconds(answer.took))}});
    return answer;
  }
  GiveUp(taken);
  // Waited for, so that an answer means an open door; a PgBouncer that is frozen opens it later.
  if (holds && !taken.before.held)
    Await(taken.order + 1, clock_.Monotonic() + kGiveUpPatience, {}, IsOpen);
  if (!holds) return Down("hold", *view, "the hold was given up");
  return base::WithReason(
      base::Error(
          absl::StatusCode::kFailedPrecondition,
          "hold: {} transactions did not end within {}; the hold was given up and the door "
          "is as it was. HINT: end them, wait longer, or hold what is new and let them run on",
          view->transactions, absl::FormatDuration(order.drain)),
      {.reason = "GATE_TRANSACTIONS",
       .metadata = {{"transactions", fmt::format("{}", view->transactions)}}});
}

absl::Status Gate::AwaitTarget(const ReleaseOrder& order, base::MonotonicTime until) {
  while (true) {
    const absl::Status answers = options_.ping(order.target);
    if (answers.ok()) return absl::OkStatus();
    const bool left = order.caller_left && order.caller_left();
    if (clock_.Monotonic() >= until || left) {
      return base::WithReason(
          base::Error(absl::StatusCode::kUnavailable,
                      "release: {}; the door is as it was. HINT: a door is led to a server that "
                      "accepts connections",
                      std::string(answers.message())),
          {.reason = "GATE_TARGET",
           .metadata = {{"host", order.target.host},
                        {"port", fmt::format("{}", order.target.port)}}});
    }
    clock_.Sleep(kPingPause);
  }
}

absl::StatusOr<ReleaseAnswer> Gate::Release(const ReleaseOrder& order) {
  const base::MonotonicTime start = clock_.Monotonic();
  METAL_RETURN_IF_ERROR(CheckTarget(order.target));
  METAL_RETURN_IF_ERROR(CheckWait("the time to wait", order.wait));
  METAL_RETURN_IF_ERROR(CheckOrder(Record(), order.who));
  METAL_RETURN_IF_ERROR(AwaitTarget(order, start + order.wait));
  ReleaseAnswer answer;
  uint64_t number = 0;
  {
    base::MutexLock orders(order_mutex_);
    const DoorRecord before = Record();
    METAL_RETURN_IF_ERROR(CheckOrder(before, order.who));
    answer.was_held = before.held;
    if (WasAsked(before, order.who.request_id) == Asked::kLast) {
      base::MutexLock lock(mutex_);
      number = order_;
    } else {
      METAL_ASSIGN_OR_RETURN(number, Take(ApplyRelease(before, order.who, order.target), kNever));
    }
  }
  // The ping may have taken most of the time.
  const base::MonotonicTime until =
      std::max(start + order.wait, clock_.Monotonic() + absl::Seconds(1));
  const auto view = Await(number, until, order.caller_left, IsOpen);
  if (!view) return Superseded("release");
  answer.took = clock_.Monotonic() - start;
  if (!IsOpen(*view)) {
    return Down("release", *view,
                fmt::format("it is stored, and the door leads to {} as soon as "
                            "pgbouncer answers",
                            order.target.ToString()));
  }
  Emit(observe::Severity::kInfo, "gate.released",
       fmt::format("{} leads the door to {} in term {}", order.who.orchestrator_id,
                   order.target.ToString(), order.who.term),
       {{"took_ms", fmt::format("{}", absl::ToInt64Milliseconds(answer.took))}});
  return answer;
}

std::optional<DoorView> Gate::Await(uint64_t order, base::MonotonicTime until,
                                    const std::function<bool()>& caller_left,
                                    bool (*done)(const DoorView&)) {
  base::MutexLock lock(mutex_);
  while (true) {
    if (order_ != order) return std::nullopt;
    const bool seen = seen_order_ >= order;
    if (seen && done(seen_view_)) return seen_view_;
    // What comes of an order is seen at the keeper's next look, which may be later than `until`.
    const absl::Duration left = until + (seen ? absl::ZeroDuration() : kSight) - clock_.Monotonic();
    if (left <= absl::ZeroDuration() || (caller_left && caller_left())) {
      // Nothing was seen of the order: whatever was seen before is no answer to it.
      if (seen) return seen_view_;
      DoorView unseen;
      unseen.pid = seen_view_.pid;
      unseen.problem = seen_view_.problem;
      return unseen;
    }
    seen_.WaitFor(mutex_, std::min(left, kWaitSlice));
  }
}

// ---- for the keeper ----

void Gate::Expire() {
  Emit(observe::Severity::kWarning, "gate.hold_expired",
       fmt::format("the hold of {} in term {} reached its deadline; the door leads to {} again",
                   record_.orchestrator_id, record_.term, record_.target.ToString()));
  record_ = ApplyExpiry(record_);
  hold_end_ = kNever;
  expiry_unsaved_ = true;
  ++order_;
}

WishSource::Wish Gate::NextWish() {
  base::MutexLock lock(mutex_);
  if (record_.held && clock_.Monotonic() >= hold_end_) Expire();
  Wish wish;
  wish.order = order_;
  wish.door.open = !record_.held;
  wish.door.target = record_.target;
  wish.door.users_revision = users_ == nullptr ? 0 : users_->revision();
  return wish;
}

bool Gate::HasChanged(uint64_t order) {
  base::MutexLock lock(mutex_);
  return order_ != order || (record_.held && clock_.Monotonic() >= hold_end_);
}

absl::Duration Gate::UntilChange() {
  base::MutexLock lock(mutex_);
  return record_.held ? hold_end_ - clock_.Monotonic() : absl::InfiniteDuration();
}

// The door is open before it is stored that it is: a disk that hangs does not prolong a hold, and a
// restart finds a hold whose deadline has passed.
void Gate::StoreExpiry() {
  if (!order_mutex_.TryLock()) return;  // the order that is being stored says it all
  DoorRecord record;
  bool unsaved = false;
  {
    base::MutexLock lock(mutex_);
    unsaved = std::exchange(expiry_unsaved_, false);
    record = record_;
  }
  if (unsaved && !Store(record).ok()) {
    base::MutexLock lock(mutex_);
    expiry_unsaved_ = true;
  }
  order_mutex_.Unlock();
}

bool Gate::IsDue(uint64_t order, const DoorView& before, const DoorView& view) {
  const base::MonotonicTime now = clock_.Monotonic();
  const bool changed = order != published_order_ || before.answers != view.answers ||
                       before.drained != view.drained || before.pid != view.pid ||
                       before.problem != view.problem;
  if (!changed && now - published_at_ < kPublish) return false;
  published_order_ = order;
  published_at_ = now;
  return true;
}

void Gate::Saw(uint64_t order, const DoorView& view) {
  bool unsaved = false;
  DoorView before;
  {
    base::MutexLock lock(mutex_);
    seen_order_ = order;
    before = std::exchange(seen_view_, view);
    unsaved = expiry_unsaved_;
  }
  seen_.NotifyAll();
  if (IsDue(order, before, view)) Publish(view);
  if (unsaved) StoreExpiry();
}

void Gate::Publish(const DoorView& view) {
  const DoorRecord record = Record();
  board_.Update([&](observe::NodeStatus& status) {
    observe::GateSection& gate = status.gate;
    gate.time = {clock_.Now(), clock_.Monotonic()};
    gate.state = !view.answers ? observe::GateState::kDown
                 : record.held ? observe::GateState::kHeld
                               : observe::GateState::kOpen;
    gate.reason = view.problem;
    gate.listen = listen_.ToString();
    gate.host = record.target.host;
    gate.port = record.target.port;
    gate.held_since = record.held_since;
    gate.held_until = record.held_until;
    gate.term = record.term;
    gate.orchestrator = record.orchestrator_id;
    gate.pid = view.pid;
    gate.restarts = view.restarts;
    gate.clients = view.clients;
    gate.waiting = view.waiting;
    gate.servers = view.servers;
    gate.transactions = view.transactions;
  });
}

void Gate::Emit(observe::Severity severity, std::string type, std::string message,
                std::map<std::string, std::string> attributes) {
  EmitGateEvent(events_, severity, std::move(type), "gate", std::move(message),
                std::move(attributes));
}

DoorNews Gate::NewsOf(const std::string& subject) {
  return DoorNewsOf(subject, clock_, board_, events_);
}

}  // namespace metal::gate
