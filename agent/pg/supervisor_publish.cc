// What PostgresSupervisor knows and publishes.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "agent/base/status.h"
#include "agent/pg/control_file.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/supervisor.h"

namespace metal::pg {

std::shared_ptr<const Postmaster> PostgresSupervisor::postmaster() {
  base::MutexLock lock(mutex_);
  return process_;
}

DesiredState PostgresSupervisor::desired() {
  base::MutexLock lock(mutex_);
  return desired_;
}

bool PostgresSupervisor::ending() {
  base::MutexLock lock(mutex_);
  return ending_;
}

StartRole PostgresSupervisor::launched_role() {
  base::MutexLock lock(mutex_);
  return launched_role_;
}

absl::StatusOr<std::shared_ptr<const Postmaster>> PostgresSupervisor::LivePostmaster(
    Finding finding) {
  std::shared_ptr<const Postmaster> process = postmaster();
  if (process && process->alive()) return process;
  METAL_ASSIGN_OR_RETURN(const std::optional<FoundPostmaster> found, FindPostmaster(Place()));
  // Before the watch's first look an action may be the first to find the server: what is published
  // must name it then too, for the watch only follows a server that is published.
  if (!found) {
    SetProcess(nullptr);
  } else if (finding == Finding::kAdopt) {
    Adopt(*found);
  } else {
    TakeUp(*found);
  }
  {
    base::MutexLock lock(mutex_);
    first_look_due_ = false;
  }
  return found ? found->process : nullptr;
}

absl::Status PostgresSupervisor::StoreDesired(const DesiredState& state) {
  base::MutexLock store(store_mutex_);
  return StoreDesiredLocked(state);
}

absl::Status PostgresSupervisor::StoreDesiredLocked(const DesiredState& state) {
  if (desired() == state) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(StoreDesiredState(options_.state_dir, state));
  base::MutexLock lock(mutex_);
  desired_ = state;
  return absl::OkStatus();
}

void PostgresSupervisor::SetProcess(std::shared_ptr<const Postmaster> process) {
  {
    base::MutexLock lock(mutex_);
    process_ = std::move(process);
    seen_alive_ |= process_ != nullptr;
  }
  Wake();
}

void PostgresSupervisor::Wake() {
  const uint64_t one = 1;
  // The counter is full only when the thread has not yet read an earlier wake-up.
  if (write(wake_.get(), &one, sizeof one) < 0) return;
}

void PostgresSupervisor::PublishState(observe::PostgresState state, const std::string& reason) {
  const std::shared_ptr<const Postmaster> process = postmaster();
  int restarts = 0;
  {
    base::MutexLock lock(mutex_);
    restarts = policy_.count(clock_.Monotonic());
  }
  const observe::SectionTime now{clock_.Now(), clock_.Monotonic()};
  board_.Update([&](observe::NodeStatus& status) {
    observe::PostgresSection& section = status.postgres;
    section.time = now;
    section.state = state;
    section.state_reason = reason;
    section.pid = process ? process->pid() : 0;
    section.start_time = process ? process->start_time() : absl::InfinitePast();
    section.restarts = restarts;
    section.data_directory = options_.data_dir;
    section.socket_dir = options_.socket_dir;
    section.port = options_.port;
    if (state != observe::PostgresState::kStarting) section.start_progress.clear();
    if (process) return;
    section.role_observed = observe::Role::kUnknown;
    section.in_recovery = false;
    section.connections = 0;
    // Nobody follows, and nobody is followed by, a server that is not there.
    status.standby = {};
    status.followers = {};
    status.standby.time = status.followers.time = now;
  });
}

void PostgresSupervisor::PublishLook() {
  const observe::SectionTime now{clock_.Now(), clock_.Monotonic()};
  board_.Update([&](observe::NodeStatus& status) { status.postgres.time = now; });
}

void PostgresSupervisor::PublishStopped() {
  const absl::StatusOr<DataDirectory> directory = InspectDataDirectory(options_.data_dir);
  if (!directory.ok()) {
    PublishState(observe::PostgresState::kUnknown, std::string(directory.status().message()));
    return;
  }
  switch (directory->kind) {
    case DataDirectoryKind::kMissing:
    case DataDirectoryKind::kEmpty:
      PublishState(observe::PostgresState::kNoDataDirectory, "");
      return;
    case DataDirectoryKind::kForeign:
      PublishState(observe::PostgresState::kNoDataDirectory,
                   "the data directory holds something else");
      return;
    case DataDirectoryKind::kIncomplete:
      if (directory->half_rewound()) {
        PublishState(observe::PostgresState::kStopped, "a rewind did not finish");
        return;
      }
      PublishState(observe::PostgresState::kNoDataDirectory,
                   fmt::format("{} did not finish", directory->incomplete_task));
      return;
    case DataDirectoryKind::kCluster:
      PublishControl();
      PublishState(observe::PostgresState::kStopped, "");
      return;
  }
}

void PostgresSupervisor::PublishControl() {
  const absl::StatusOr<ControlFile> control = ReadControlFile(options_.data_dir);
  if (!control.ok()) return;
  board_.Update([&](observe::NodeStatus& status) {
    observe::PostgresSection& section = status.postgres;
    section.system_identifier = control->system_identifier;
    section.control_state = std::string(ControlStateName(control->state));
    section.redo_lsn = control->redo;
    section.min_recovery_lsn = control->min_recovery;
    section.timeline = std::max(section.timeline, control->timeline);
    section.data_checksums = control->checksum_version != 0;
  });
}

void PostgresSupervisor::Emit(observe::Severity severity, const std::string& type,
                              const std::string& message,
                              std::map<std::string, std::string> attributes) {
  observe::Event event;
  event.time = absl::InfinitePast();
  event.severity = severity;
  event.type = type;
  event.subject = "postgres";
  event.message = message;
  event.attributes = std::move(attributes);
  events_.Append(std::move(event));
}

}  // namespace metal::pg
