// Node's own threads. The role watch looks at memory only. One refresher asks the data disk, by way
// of a thread that nobody waits for long; the other one the repository, and the cleaner what a
// killed rehearsal left: each may hang with its disk without harm to the others.
#include <algorithm>

#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/database_devices.h"
#include "agent/node/database_faults.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/recorder_device.h"

namespace metal::node {

namespace {

constexpr absl::Duration kRoleInterval = absl::Seconds(1);
constexpr absl::Duration kRefreshInterval = absl::Minutes(1);
constexpr absl::Duration kDataDiskPatience = absl::Seconds(2);
constexpr absl::Duration kHungInterval = absl::Seconds(5);    // while the data disk does not answer
constexpr absl::Duration kSystemPatience = absl::Seconds(2);  // then the data disk hangs
// A change of role makes a node look rogue for a moment; it holds the action lock then.
constexpr absl::Duration kRoguePatience = absl::Seconds(3);
constexpr absl::Duration kEnforceStep = absl::Seconds(10);    // longer after each try …
constexpr absl::Duration kEnforceSlowest = absl::Minutes(1);  // … up to this: a fence never lapses
constexpr const char* kRogueFault = "unordered_primary";
constexpr const char* kLockFault = "data_directory_locked";
constexpr const char* kLockSubject = "postgres";
constexpr size_t kLatestBackups = 5;

// What no server may be read-write for, ordered or not.
bool MustBeReadOnly(const TermRecord& record) {
  return record.fence.active || record.lease.expired;
}

observe::BackupSummary SummaryOf(const backup::BackupInfo& info) {
  observe::BackupSummary summary;
  summary.name = info.label;
  summary.state = std::string(backup::BackupStateName(info.state));
  summary.start = info.header.start_time;
  summary.stop = info.header.stop_time;
  summary.bytes = info.header.bytes;
  summary.stored_bytes = info.header.stored_bytes;
  summary.bytes_per_second = info.bytes_per_second();
  summary.codec = info.header.codec;
  summary.io_engine = info.header.io_engine;
  summary.start_lsn = info.header.start_lsn;
  summary.stop_lsn = info.header.stop_lsn;
  summary.timeline = info.header.timeline;
  return summary;
}

}  // namespace

void Node::WatchRole() {
  while (true) {
    {
      base::MutexLock lock(mutex_);
      wake_.WaitFor(mutex_, std::min({kRoleInterval, NextLook(), sick_server_.NextLook()}),
                    [this] { return stopping_ || lease_changed_; });
      if (stopping_) return;
      lease_changed_ = false;
    }
    CheckLease();
    CheckDisks();
    CheckRole();
    CheckRewindFloor();
    FeedWatchdog();
    // Not with the monitor of PostgreSQL: that is late when the disk is busy, which is when it
    // counts.
    if (parts_.copy_pace == nullptr) continue;
    const auto status = parts_.board.Get();
    parts_.copy_pace->Adjust(status->archive.ready_segments, DriveIsHot(*status));
  }
}

// True: a server that may not be a primary (fenced, or its lease ran out) lives and does not
// answer, and nobody has yet proved that it is read-only: its sessions may be writing.
bool Node::ReadOnlyUnproven(const TermRecord& record, const observe::PostgresSection& postgres) {
  using P = observe::PostgresState;
  return MustBeReadOnly(record) && postgres.pid != 0 && postgres.pid != fence_proven_pid_ &&
         (postgres.state == P::kUnresponsive || postgres.state == P::kStopping);
}

void Node::CheckRole() {
  const TermRecord record = parts_.terms.Get();
  const base::MonotonicTime now = parts_.clock.Monotonic();
  const auto seen = parts_.board.Get();
  const bool unproven = ReadOnlyUnproven(record, seen->postgres);
  if (!unproven && ClassifyRole(record, seen->postgres) != RoleState::kRogue) {
    if (rogue_since_) parts_.board.ClearFault(kRogueFault, "postgres");
    rogue_since_.reset();
    enforce_tries_ = 0;
    return;
  }
  if (!rogue_since_) rogue_since_ = now;
  if (now - *rogue_since_ < kRoguePatience) return;
  if (parts_.operations.action_lock().Current()) return;
  // A server that was primary before any orchestrator spoke is reported and left alone; a fence and
  // the end of a lease are enforced.
  observe::Fault fault;
  fault.fault_class = kRogueFault;
  fault.subject = "postgres";
  fault.severity = observe::Severity::kCritical;
  fault.message =
      MustBeReadOnly(record)
          ? fmt::format("{} although {}",
                        unproven ? "perhaps read-write (it does not answer)" : "read-write",
                        record.fence.active
                            ? fmt::format("fenced in term {}", record.fence.term)
                            : fmt::format("its lease of term {} ran out", record.lease.term))
          : fmt::format("read-write without an order of term {}", record.term);
  fault.since = parts_.clock.Now();
  const auto status = parts_.board.Get();
  if (!status->faults.contains(fault.fault_class + "/" + fault.subject)) {
    Emit(parts_.events, observe::Severity::kCritical, "role.unordered_primary", "postgres",
         fault.message);
  }
  parts_.board.RaiseFault(std::move(fault));
  // An operation's journal may hang with the disk: what ends a sick server first does without.
  if (MustBeReadOnly(record) && !sick_server_.ending()) EnforceReadOnly(record);
}

void Node::EnforceReadOnly(const TermRecord& record) {
  const base::MonotonicTime now = parts_.clock.Monotonic();
  const uint64_t term = record.fence.active ? record.fence.term : record.lease.term;
  if (enforced_term_ != term) {
    enforced_term_ = term;
    enforce_tries_ = 0;
  }
  if (enforce_tries_ > 0 && now < enforce_next_) return;
  ++enforce_tries_;
  enforce_next_ = now + std::min(kEnforceStep * enforce_tries_, kEnforceSlowest);
  OperationSpec spec;
  spec.kind = record.fence.active ? "EnforceFence" : "EnforceLeaseEnd";
  spec.subject = fmt::format("term {}", term);
  spec.term = term;
  spec.request.caller = "role watch";
  const auto started = parts_.operations.Start(
      std::move(spec), [this](OperationContext& context) { return RunFence(context); });
  if (!started.ok()) {
    base::LogWarning("event=enforce_read_only message=\"{}\"",
                     std::string(started.status().message()));
  }
}

void Node::RequestRefresh() {
  base::MutexLock lock(mutex_);
  ++refreshes_asked_;
  wake_.NotifyAll();
}

void Node::RefreshLoop(absl::Duration (Node::*refresh)()) {
  uint64_t done = 0;
  while (true) {
    const absl::Duration wait = (this->*refresh)();
    base::MutexLock lock(mutex_);
    wake_.WaitFor(mutex_, wait, [&] { return stopping_ || refreshes_asked_ != done; });
    if (stopping_) return;
    done = refreshes_asked_;
  }
}

absl::Duration Node::RefreshDirectories() {
  const auto ask = [data_dir = parts_.config.pg_data_dir, lock = parts_.data_lock] {
    DirectoryLook look;
    if (lock) look.lock = lock->LockDirectory();
    look.control = pg::ReadControlFile(data_dir);
    look.directory = pg::InspectDataDirectory(data_dir);
    look.devices = DevicesOf(data_dir, look.directory);
    return look;
  };
  const auto look = look_.Run("node-data-disk", ask, kDataDiskPatience);
  if (!look) {
    RefreshProbeTargets(absl::DeadlineExceededError("the data disk does not answer"));
    return kHungInterval;
  }
  ReportDataLock(look->lock);
  LookForSystem(look->control);
  RefreshProbeTargets(look->directory);
  if (!look->devices.empty() && !std::exchange(device_compared_, true)) {
    for (const auto& [path, device] : look->devices) {
      parts_.terms.WarnIfOnSameDevice(path, device);
      WarnIfRecorderOnDataDevice(parts_.config.recorder_directory, path, device, parts_.events);
    }
  }
  return kRefreshInterval;
}

// The disk hung when the agent started, and meanwhile another agent works on the directory: nothing
// is started or changed by this one (SupervisorOptions::lock_directory).
void Node::ReportDataLock(const absl::Status& lock) {
  if (!absl::IsAborted(lock)) {
    parts_.board.ClearFault(kLockFault, kLockSubject);
    return;
  }
  observe::Fault fault;
  fault.fault_class = kLockFault;
  fault.subject = kLockSubject;
  fault.severity = observe::Severity::kCritical;
  fault.message = std::string(lock.message());
  fault.since = parts_.clock.Now();
  if (!parts_.board.Get()->faults.contains(fault.fault_class + "/" + fault.subject)) {
    Emit(parts_.events, observe::Severity::kCritical, "agent.data_directory_locked", kLockSubject,
         fault.message);
  }
  parts_.board.RaiseFault(std::move(fault));
}

void Node::LookForSystem(const absl::StatusOr<pg::ControlFile>& control) {
  absl::StatusOr<std::optional<uint64_t>> system = std::optional<uint64_t>();
  if (control.ok()) {
    system = std::optional<uint64_t>(control->system_identifier);
  } else if (!absl::IsNotFound(control.status())) {
    system = control.status();
  }
  base::MutexLock lock(mutex_);
  if (system_on_disk_) {
    if (!system.ok() && system_on_disk_->ok()) return;  // a failing disk makes it no other cluster
    if (*system_on_disk_ == system) return;
  }
  system_on_disk_ = std::move(system);
  ++refreshes_asked_;  // which backups are this node's may have changed
  wake_.NotifyAll();
}

absl::StatusOr<std::optional<uint64_t>> Node::OwnSystem() {
  const uint64_t published = parts_.board.Get()->postgres.system_identifier;
  if (published != 0) return std::optional<uint64_t>(published);
  base::MutexLock lock(mutex_);
  wake_.WaitFor(mutex_, kSystemPatience, [this] { return stopping_ || system_on_disk_; });
  if (system_on_disk_ && system_on_disk_->ok()) return *system_on_disk_;
  constexpr const char* kUnknown = "which cluster is this node's is not known";
  if (system_on_disk_) return base::Annotate(system_on_disk_->status(), kUnknown);
  return base::Error(absl::StatusCode::kUnavailable,
                     "{}: the data disk does not answer. HINT: metalctl disk list; a backup is "
                     "found by its name",
                     kUnknown);
}

void Node::RefreshProbeTargets(const absl::StatusOr<pg::DataDirectory>& directory) {
  const base::AgentConfig& config = parts_.config;
  const std::string& repository = config.repository_path;
  if (!repository.empty()) parts_.disks.AddTarget("repository", repository);
  if (!directory.ok()) {
    // Unknown: what is watched stays watched, and an agent that has just started says what is wrong
    // with the disk. A path that is no directory is not the disk's fault.
    if (!absl::IsFailedPrecondition(directory.status()) && parts_.disks.DirectoryOf("data").empty())
      parts_.disks.AddTarget("data", config.pg_data_dir);
    return;
  }
  RefreshRewind(*directory);
  // Only a whole data directory gets a probe file: initdb and restore want an empty one. Their
  // disks stay in view, for a restore takes hours.
  if (directory->kind == pg::DataDirectoryKind::kEmpty ||
      directory->kind == pg::DataDirectoryKind::kIncomplete) {
    for (const std::string& role : parts_.disks.roles()) {
      if (role != "repository") parts_.disks.StopProbing(role);
    }
    return;
  }
  std::vector<std::pair<std::string, std::string>> targets;
  if (directory->kind == pg::DataDirectoryKind::kCluster) {
    targets.emplace_back("data", directory->real_path);
    if (!directory->wal_path.empty() &&
        !directory->wal_path.starts_with(directory->real_path + "/")) {
      targets.emplace_back("wal", directory->wal_path);
    }
    for (const pg::TablespaceLink& tablespace : directory->tablespaces) {
      if (tablespace.in_place) continue;
      targets.emplace_back(fmt::format("tablespace:{}", tablespace.oid), tablespace.location);
    }
  }
  if (!repository.empty()) targets.emplace_back("repository", repository);
  for (const std::string& role : parts_.disks.roles()) {
    const bool wanted = std::any_of(targets.begin(), targets.end(),
                                    [&](const auto& target) { return target.first == role; });
    if (!wanted) parts_.disks.RemoveTarget(role);
  }
  for (const auto& [role, path] : targets) parts_.disks.AddTarget(role, path);
}

void Node::RemoveLeftRehearsals(const std::vector<backup::RehearsalScratch>& left) {
  for (const backup::RehearsalScratch& scratch : left) {
    const absl::Status removed = backup::RemoveRehearsalScratch(
        scratch, parts_.config.pg_bin_dir, parts_.clock, [this] { return EndIsDue(); });
    if (absl::IsCancelled(removed)) return;  // the next start goes on
    Emit(parts_.events, removed.ok() ? observe::Severity::kInfo : observe::Severity::kWarning,
         removed.ok() ? "rehearsal.leftovers_removed" : "rehearsal.leftovers_kept", scratch.root,
         removed.ok()
             ? "the agent died during a rehearsal; its server and directory are gone"
             : fmt::format("left by a rehearsal that died: {}", std::string(removed.message())));
  }
}

absl::Duration Node::RefreshBackups() {
  if (parts_.config.repository_path.empty()) return kRefreshInterval;
  observe::BackupsSection section;
  section.repository = parts_.config.repository_path;
  const auto backups = ListBackups();
  if (backups.ok()) {
    section.count = backups->size();
    for (size_t i = 0; i < backups->size() && i < kLatestBackups; ++i) {
      section.latest.push_back(SummaryOf((*backups)[i]));
    }
  } else {
    section.error = std::string(backups.status().message());
  }
  section.time = {parts_.clock.Now(), parts_.clock.Monotonic()};
  parts_.board.Update([&](observe::NodeStatus& status) {
    if (!section.error.empty()) {
      // What was seen last stays, with its age; only the error is news.
      status.backups.repository = section.repository;
      status.backups.error = section.error;
      return;
    }
    status.backups = section;
  });
  return kRefreshInterval;
}

}  // namespace metal::node
