#include "agent/disk/disk_monitor.h"

#include <algorithm>
#include <set>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/disk/disk_monitor_impl.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kTargetStopPatience = absl::Milliseconds(500);
constexpr absl::Duration kStopPatience = absl::Milliseconds(400);

// "Silent" must mean that probes are missing, however rarely they are made.
DiskMonitorOptions WithScaledLimits(DiskMonitorOptions options) {
  const absl::Duration rarest =
      std::max(options.schedule.read_interval, options.schedule.write_interval);
  options.limits.silent_after = std::max(options.limits.silent_after, 3 * rarest);
  return options;
}

}  // namespace

DiskMonitor::Impl::Impl(DiskMonitorOptions options, observe::StatusBoard& board,
                        observe::EventLog& events, PrivilegedHelper* helper, base::Clock& clock)
    : options_(WithScaledLimits(std::move(options))),
      board_(board),
      events_(events),
      clock_(clock),
      desk_(board, events, clock),
      drives_(helper, clock, sink_,
              {.unlisted_logs = options_.unlisted_logs, .counters = options_.counters}),
      kernel_(KernelOptions(helper), sink_, events, clock),
      postgres_log_(
          options_.postgres_log.empty()
              ? nullptr
              : std::make_unique<PostgresLogWatch>(options_.postgres_log, sink_, events, clock)),
      space_(options_.read_only_at),
      record_file_(options_.record_path),
      supervisor_("disk-supervisor", [this] { Supervise(); }),
      inventory_("disk-inventory", [this] { TakeInventory(); }) {
  desk_.SetPolicy(options_.reactions);
}

DiskMonitor::Impl::~Impl() {
  {
    base::MutexLock lock(mutex_);
    stop_ = true;
    for (auto& [role, target] : targets_) {
      if (target->prober) target->prober->AskToStop();
    }
  }
  changed_.NotifyAll();
  inventory_.Join();
  supervisor_.Join();
  const base::MonotonicTime deadline = clock_.Monotonic() + kStopPatience;
  for (auto& [role, target] : targets_) {
    if (!target->prober) continue;
    target->prober->Stop(std::max(deadline - clock_.Monotonic(), absl::ZeroDuration()));
  }
}

void DiskMonitor::Impl::AddTarget(const std::string& role, const std::string& directory) {
  {
    base::MutexLock lock(mutex_);
    const auto found = targets_.find(role);
    const bool known = found != targets_.end() && found->second->directory == directory;
    if (known && (found->second->prober || !options_.probe_enabled)) return;
  }
  RemoveTarget(role);
  auto target = std::make_shared<Target>(directory, options_.limits);
  target->state_since = clock_.Now();
  target->state_since_monotonic = clock_.Monotonic();
  if (options_.probe_enabled) target->prober = MakeProber(role, directory);
  base::MutexLock lock(mutex_);
  targets_[role] = std::move(target);
  TellRoles();
  publish_ = true;
  inventory_due_ = true;
  changed_.NotifyAll();
}

void DiskMonitor::Impl::RemoveTarget(const std::string& role) {
  std::shared_ptr<Target> target;
  {
    base::MutexLock lock(mutex_);
    const auto found = targets_.find(role);
    if (found == targets_.end()) return;
    target = std::move(found->second);
    targets_.erase(found);
    ReturnProber(*target);
    TellRoles();
    publish_ = true;
    inventory_due_ = true;  // its disk may not be in use any more
    changed_.NotifyAll();
    desk_.ForgetRole(role);
  }
  if (target->prober && !target->borrowed) target->prober->Stop(kTargetStopPatience);
}

std::shared_ptr<Target> DiskMonitor::Impl::Unprobed(const Target& target) {
  auto unprobed = std::make_shared<Target>(target.directory, options_.limits);
  unprobed->state_since = clock_.Now();
  unprobed->state_since_monotonic = clock_.Monotonic();
  unprobed->real_path = target.real_path;
  unprobed->stack = target.stack;
  unprobed->space = target.space;
  unprobed->room = target.room;
  return unprobed;
}

void DiskMonitor::Impl::StopProbing(const std::string& role) {
  std::shared_ptr<Target> target;
  {
    base::MutexLock lock(mutex_);
    const auto found = targets_.find(role);
    if (found == targets_.end() || !found->second->prober) return;
    target = found->second;
    found->second = Unprobed(*target);
    ReturnProber(*target);
    publish_ = true;
    desk_.ForgetRole(role);
  }
  if (!target->borrowed) target->prober->Stop(kTargetStopPatience);
}

std::vector<std::string> DiskMonitor::Impl::roles() {
  base::MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [role, target] : targets_) names.push_back(role);
  return names;
}

absl::StatusOr<std::shared_ptr<Prober>> DiskMonitor::Impl::FindProber(const std::string& role) {
  base::MutexLock lock(mutex_);
  const auto found = targets_.find(role);
  if (found == targets_.end()) {
    std::vector<std::string> names;
    for (const auto& [name, target] : targets_) names.push_back(name);
    return base::Error(absl::StatusCode::kNotFound,
                       "no watched directory has the role \"{}\". HINT: roles now: {}", role,
                       names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  if (!found->second->prober && options_.probe_enabled) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "{} is not probed while it is empty or half made. HINT: try again when "
                       "what makes it has ended",
                       found->second->directory);
  }
  if (!found->second->prober) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "probing is switched off. HINT: set disk.probe_enabled = true");
  }
  return found->second->prober;
}

std::string DiskMonitor::Impl::DiskOf(const std::string& role) {
  base::MutexLock lock(mutex_);
  const auto found = targets_.find(role);
  if (found == targets_.end() || !found->second->stack || found->second->stack->disks.empty()) {
    return "";
  }
  return found->second->stack->disks.front().name;
}

void DiskMonitor::Impl::SetPeers(const std::vector<PeerExcess>& peers) {
  slow_.SetPeers(peers, clock_.Monotonic());
}

std::string DiskMonitor::Impl::DirectoryOf(const std::string& role) {
  base::MutexLock lock(mutex_);
  const auto found = targets_.find(role);
  return found == targets_.end() ? "" : found->second->directory;
}

std::shared_ptr<Prober> DiskMonitor::Impl::MakeProber(const std::string& role,
                                                      const std::string& directory) {
  const std::string path = base::JoinPath(directory, kProbeFileName);
  return std::make_shared<Prober>(
      ProberOptions{.node_id = options_.node_id,
                    .role = role,
                    .schedule = options_.schedule,
                    .late_after = options_.limits.late_after},
      options_.make_device ? options_.make_device(path) : MakeFileProbeDevice(path), clock_);
}

KernelSourcesOptions DiskMonitor::Impl::KernelOptions(PrivilegedHelper* helper) {
  KernelSourcesOptions kernel;
  kernel.roots = options_.roots;
  kernel.stalled_after = options_.limits.stall_after;
  kernel.helper = helper;
  kernel.xfs_retries = options_.xfs_retries;
  kernel.lines = options_.kernel_lines;
  return kernel;
}

void DiskMonitor::Impl::TellRoles() {
  if (postgres_log_ == nullptr) return;
  std::set<std::string> roles;
  for (const auto& [role, target] : targets_) roles.insert(role);
  postgres_log_->SetRoles(std::move(roles));
}

void DiskMonitor::Impl::Take(Evidence evidence) { desk_.Take(std::move(evidence)); }

void DiskMonitor::Impl::NoteAction(const std::string& fault_class, const std::string& subject,
                                   const std::string& text) {
  desk_.NoteAction(fault_class, subject, text);
}

DiskMonitor::DiskMonitor(DiskMonitorOptions options, observe::StatusBoard& board,
                         observe::EventLog& events, PrivilegedHelper* helper, base::Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), board, events, helper, clock)) {}
DiskMonitor::~DiskMonitor() = default;

void DiskMonitor::AddTarget(const std::string& role, const std::string& directory) {
  impl_->AddTarget(role, directory);
}
void DiskMonitor::RemoveTarget(const std::string& role) { impl_->RemoveTarget(role); }
void DiskMonitor::StopProbing(const std::string& role) { impl_->StopProbing(role); }
std::vector<std::string> DiskMonitor::roles() const { return impl_->roles(); }
absl::StatusOr<std::shared_ptr<Prober>> DiskMonitor::FindProber(const std::string& role) const {
  return impl_->FindProber(role);
}
std::string DiskMonitor::DiskOf(const std::string& role) const { return impl_->DiskOf(role); }
void DiskMonitor::Take(Evidence evidence) { impl_->Take(std::move(evidence)); }
void DiskMonitor::NoteAction(const std::string& fault_class, const std::string& subject,
                             const std::string& text) {
  impl_->NoteAction(fault_class, subject, text);
}
void DiskMonitor::SetPeers(const std::vector<PeerExcess>& peers) { impl_->SetPeers(peers); }
std::map<std::string, DriveReport> DiskMonitor::DriveReports() const {
  return impl_->DriveReports();
}
absl::StatusOr<std::vector<observe::Fault>> DiskMonitor::Acknowledge(
    const AcknowledgeRequest& request) {
  return impl_->Acknowledge(request);
}
void DiskMonitor::NoteDrivesAnew() { impl_->NoteDrivesAnew(); }
absl::Status DiskMonitor::CheckDrives(const std::string& data_directory) const {
  return impl_->CheckDrives(data_directory);
}
std::string DiskMonitor::DirectoryOf(const std::string& role) const {
  return impl_->DirectoryOf(role);
}

}  // namespace metal::disk
