#include "agent/gate/read_only_door.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "agent/gate/news.h"

namespace metal::gate {

PgbouncerOptions ProcessOptionsOf(const DoorSettings& settings, const std::string& program,
                                  std::function<void(pid_t)> move_to_scope) {
  PgbouncerOptions options;
  options.program = program;
  options.ini_path = settings.ini_path();
  options.pid_path = settings.pid_path();
  options.log_path = settings.log_path();
  options.directory = settings.directory;
  options.move_to_scope = std::move(move_to_scope);
  return options;
}

Gate::ReadOnlyDoor::ReadOnlyDoor(Options options, base::Clock& clock, observe::StatusBoard& board,
                                 observe::EventLog& events, DoorNews news)
    : options_(std::move(options)),
      clock_(clock),
      board_(board),
      events_(events),
      judge_(options_.max_lag),
      process_(MakePgbouncer(
          ProcessOptionsOf(options_.settings, options_.program, options_.move_to_scope))),
      door_(std::make_unique<Door>(
          options_.settings, *process_,
          LibpqConsoles(options_.settings.directory, options_.settings.listen_port), clock,
          std::move(news))),
      keeper_(std::make_unique<Keeper>("gate-readers", *door_, *process_,
                                       static_cast<WishSource&>(*this), clock)) {}

WishSource::Wish Gate::ReadOnlyDoor::NextWish() {
  ReadOnlyVerdict verdict = judge_.Judge(*board_.Get(), clock_.Monotonic());
  if (!told_ || verdict.open != verdict_.open) {
    told_ = true;
    EmitGateEvent(events_, observe::Severity::kInfo,
                  verdict.open ? "gate.read_only_opened" : "gate.read_only_closed",
                  "gate.read_only",
                  verdict.open ? "the read-only door leads to the local standby"
                               : "the read-only door refuses: " + verdict.reason);
  }
  verdict_ = std::move(verdict);
  Wish wish;
  wish.order = ++order_;
  wish.door.open = verdict_.open;
  wish.door.target = options_.local;
  wish.door.patience = verdict_.open ? Patience::kThroughHolds : Patience::kRefuse;
  wish.door.users_revision = options_.users_revision();
  return wish;
}

void Gate::ReadOnlyDoor::Saw(uint64_t, const DoorView& view) {
  board_.Update([&](observe::NodeStatus& status) {
    observe::ReadOnlyDoorSection& door = status.gate.read_only;
    door.state = !view.answers   ? observe::ReadOnlyDoorState::kDown
                 : verdict_.open ? observe::ReadOnlyDoorState::kOpen
                                 : observe::ReadOnlyDoorState::kClosed;
    door.reason = view.answers ? verdict_.reason : view.problem;
    door.listen = Target{options_.settings.listen_host, options_.settings.listen_port}.ToString();
    door.pid = view.pid;
    door.clients = view.clients;
    door.waiting = view.waiting;
  });
}

void StopLeftDoor(const std::string& directory, observe::EventLog& events) {
  DoorSettings settings;
  settings.directory = directory;
  const auto process = MakePgbouncer(ProcessOptionsOf(settings, "pgbouncer", {}));
  if (!process->Adopt()) return;
  process->Stop();
  EmitGateEvent(events, observe::Severity::kWarning, "gate.stopped", "gate",
                "ended the pgbouncer of a door that is not configured any more: " + directory);
}

}  // namespace metal::gate
