#include "agent/disk/disk_monitor.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <map>

#include "agent/base/file.h"
#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "agent/disk/detached_call.h"
#include "agent/disk/disk_report.h"
#include "agent/disk/faults/fault_desk.h"
#include "agent/disk/probe_evidence.h"
#include "agent/disk/smart_watch.h"
#include "agent/disk/sources/kernel_sources.h"
#include "agent/disk/tick_guard.h"

namespace metal::disk {
namespace {

using base::MonotonicTime;
using base::MutexLock;

// Together with SmartWatch's patience below the second in which the monitor must end.
constexpr absl::Duration kPathPatience = absl::Milliseconds(300);
constexpr absl::Duration kLongestNap = absl::Seconds(1);  // of the supervisor, beside its tick
constexpr absl::Duration kTargetStopPatience = absl::Milliseconds(500);
constexpr absl::Duration kStopPatience = absl::Milliseconds(400);
constexpr absl::Duration kDeskInterval = absl::Seconds(1);

// What only the filesystem itself can tell.
struct PathFacts {
  std::string real_path;  // empty: it could not be resolved
  std::optional<FilesystemSpace> space;
};

PathFacts ReadPathFacts(const std::string& path) {
  PathFacts facts;
  char real[PATH_MAX];
  if (realpath(path.c_str(), real) != nullptr) facts.real_path = real;
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) == 0) {
    facts.space.emplace();
    facts.space->size_bytes = uint64_t{info.f_blocks} * info.f_frsize;
    facts.space->free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  }
  return facts;
}

struct Target {
  Target(std::string directory_in, ProbeLimits limits)
      : directory(std::move(directory_in)), machine(limits) {}
  const std::string directory;
  std::shared_ptr<Prober> prober;  // null: probing is off
  ProbeStateMachine machine;
  absl::Time state_since = absl::InfinitePast();
  MonotonicTime state_since_monotonic;
  std::optional<Evidence> handed_in;  // what its probes said of it last and did not withdraw
  // The inventory thread's findings.
  std::string real_path;
  std::optional<StorageStack> stack;
  std::optional<FilesystemSpace> space;
  DetachedCall<PathFacts> path_call;  // used by the inventory thread alone
};

// "Silent" must mean that probes are missing, however rarely they are made.
DiskMonitorOptions WithScaledLimits(DiskMonitorOptions options) {
  const absl::Duration rarest =
      std::max(options.schedule.read_interval, options.schedule.write_interval);
  options.limits.silent_after = std::max(options.limits.silent_after, 3 * rarest);
  return options;
}

}  // namespace

class DiskMonitor::Impl {
 public:
  Impl(DiskMonitorOptions options, observe::StatusBoard& board, observe::EventLog& events,
       PrivilegedHelper* helper, base::Clock& clock)
      : options_(WithScaledLimits(std::move(options))),
        board_(board),
        events_(events),
        clock_(clock),
        smart_(board, events, helper, clock),
        desk_(board, events, clock),
        kernel_(
            KernelOptions(), [this](Evidence evidence) { desk_.Take(std::move(evidence)); }, events,
            clock),
        supervisor_("disk-supervisor", [this] { Supervise(); }),
        inventory_("disk-inventory", [this] { TakeInventory(); }) {}

  ~Impl() {
    {
      MutexLock lock(mutex_);
      stop_ = true;
      for (auto& [role, target] : targets_) {
        if (target->prober) target->prober->AskToStop();
      }
    }
    changed_.NotifyAll();
    inventory_.Join();
    supervisor_.Join();
    const MonotonicTime deadline = clock_.Monotonic() + kStopPatience;
    for (auto& [role, target] : targets_) {
      if (!target->prober) continue;
      target->prober->Stop(std::max(deadline - clock_.Monotonic(), absl::ZeroDuration()));
    }
  }

  void AddTarget(const std::string& role, const std::string& directory) {
    {
      MutexLock lock(mutex_);
      const auto found = targets_.find(role);
      const bool known = found != targets_.end() && found->second->directory == directory;
      if (known && (found->second->prober || !options_.probe_enabled)) return;
    }
    RemoveTarget(role);
    auto target = std::make_shared<Target>(directory, options_.limits);
    target->state_since = clock_.Now();
    target->state_since_monotonic = clock_.Monotonic();
    if (options_.probe_enabled) target->prober = MakeProber(role, directory);
    MutexLock lock(mutex_);
    targets_[role] = std::move(target);
    publish_ = true;
    inventory_due_ = true;
    changed_.NotifyAll();
  }

  void RemoveTarget(const std::string& role) {
    std::shared_ptr<Target> target;
    {
      MutexLock lock(mutex_);
      const auto found = targets_.find(role);
      if (found == targets_.end()) return;
      target = std::move(found->second);
      targets_.erase(found);
      publish_ = true;
      inventory_due_ = true;  // its disk may not be in use any more
      changed_.NotifyAll();
      desk_.ForgetRole(role);
    }
    if (target->prober) target->prober->Stop(kTargetStopPatience);
  }

  void StopProbing(const std::string& role) {
    std::shared_ptr<Target> target;
    {
      MutexLock lock(mutex_);
      const auto found = targets_.find(role);
      if (found == targets_.end() || !found->second->prober) return;
      target = found->second;
      auto unprobed = std::make_shared<Target>(target->directory, options_.limits);
      unprobed->state_since = clock_.Now();
      unprobed->state_since_monotonic = clock_.Monotonic();
      unprobed->real_path = target->real_path;
      unprobed->stack = target->stack;
      unprobed->space = target->space;
      found->second = std::move(unprobed);
      publish_ = true;
      desk_.ForgetRole(role);
    }
    target->prober->Stop(kTargetStopPatience);
  }

  std::vector<std::string> roles() {
    MutexLock lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [role, target] : targets_) names.push_back(role);
    return names;
  }

  absl::StatusOr<std::shared_ptr<Prober>> FindProber(const std::string& role) {
    MutexLock lock(mutex_);
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

  std::string DiskOf(const std::string& role) {
    MutexLock lock(mutex_);
    const auto found = targets_.find(role);
    if (found == targets_.end() || !found->second->stack || found->second->stack->disks.empty()) {
      return "";
    }
    return found->second->stack->disks.front().name;
  }

  void SetPeers(const std::vector<PeerExcess>& peers) { slow_.SetPeers(peers, clock_.Monotonic()); }

  std::string DirectoryOf(const std::string& role) {
    MutexLock lock(mutex_);
    const auto found = targets_.find(role);
    return found == targets_.end() ? "" : found->second->directory;
  }

 private:
  std::shared_ptr<Prober> MakeProber(const std::string& role, const std::string& directory) {
    const std::string path = base::JoinPath(directory, kProbeFileName);
    return std::make_shared<Prober>(
        ProberOptions{.node_id = options_.node_id,
                      .role = role,
                      .schedule = options_.schedule,
                      .late_after = options_.limits.late_after},
        options_.make_device ? options_.make_device(path) : MakeFileProbeDevice(path), clock_);
  }

  // --- The supervisor's thread: looks at clocks and counters, touches no disk. ---

  void Supervise() {
    MonotonicTime last_publish = clock_.Monotonic(), last_desk = last_publish;
    TickGuard guard(options_.tick + kLongestNap);
    MutexLock lock(mutex_);
    while (!stop_) {
      const MonotonicTime now = clock_.Monotonic();
      if (guard.Awake(now)) {
        for (auto& [role, target] : targets_) Judge(role, *target);
      }
      if (now - last_desk >= kDeskInterval) {
        last_desk = now;
        desk_.Tick();
        ObserveSpeed(now);
      }
      if (publish_ || now - last_publish >= options_.publish_interval) {
        publish_ = false;
        last_publish = now;
        Publish(now);
      }
      changed_.WaitFor(mutex_, options_.tick,
                       [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_; });
    }
  }

  void Judge(const std::string& role, Target& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!target.prober) return;
    const ProbeState from = target.machine.state();
    const ProbeFault fault_before = target.machine.fault();
    const MonotonicTime now = clock_.Monotonic();
    target.machine.Observe(target.prober->Observe(), now);
    if (target.machine.state() == from && target.machine.fault() == fault_before) return;
    const absl::Duration time_in_from = now - target.state_since_monotonic;
    target.state_since = clock_.Now();
    target.state_since_monotonic = now;
    publish_ = true;
    const TargetView view = ViewOf(role, target);
    HandIn(target, EvidenceOf(view));
    if (auto event = EventOfChange(view, from, time_in_from)) events_.Append(*std::move(event));
  }

  void HandIn(Target& target, std::optional<Evidence> evidence)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const bool other =
        target.handed_in && (!evidence || evidence->fault_class != target.handed_in->fault_class);
    if (other) desk_.Take(Withdrawn(*target.handed_in));
    if (evidence) desk_.Take(*evidence);
    target.handed_in = std::move(evidence);
  }

  // Each disk's last second, over all roles that lie on it.
  void ObserveSpeed(MonotonicTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::map<std::string, DiskSecond> seconds;
    for (const auto& [role, target] : targets_) {
      if (!target->prober || !target->stack || target->stack->disks.empty()) continue;
      const DiskInfo& disk = target->stack->disks.front();
      DiskSecond& second = seconds[disk.name];
      second.disk = disk.name;
      second.serial = disk.serial;
      second.roles.insert(role);
      for (absl::Duration each : target->prober->TakeLatencies()) second.latencies.push_back(each);
    }
    for (auto& [name, second] : seconds) {
      const auto activity = kernel_.ActivityOf(name);
      if (!activity) continue;
      second.bytes_per_second = activity->bytes_per_second();
      slow_.Observe(std::move(second), now);
    }
  }

  TargetView ViewOf(const std::string& role, Target& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    TargetView view;
    view.role = role;
    view.directory = target.directory;
    view.state_since = target.state_since;
    view.stack = target.stack;
    view.space = target.space;
    view.probed = target.prober != nullptr;
    if (!target.prober) return view;
    view.state = target.machine.state();
    view.fault = target.machine.fault();
    view.reason = target.prober->reason();
    const ProbeObservation observation = target.prober->Observe();
    view.oldest_outstanding = observation.oldest_outstanding;
    view.last_result = observation.last_result;
    view.counts = target.prober->Counts();
    return view;
  }

  void Publish(MonotonicTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::vector<TargetView> views;
    for (auto& [role, target] : targets_) views.push_back(ViewOf(role, *target));
    auto sections = BuildDiskSections(views, smart_.Sections(),
                                      {.captured_at = clock_.Now(), .monotonic = now});
    for (observe::DiskSection& section : sections) {
      section.slowness = slow_.SectionOf(section.device);
      if (const auto activity = kernel_.ActivityOf(section.device)) {
        section.activity = SectionOf(*activity);
      }
    }
    board_.Update([&](observe::NodeStatus& status) { status.disks = std::move(sections); });
  }

  // --- The inventory thread: slow sources, each with a deadline. ---

  void TakeInventory() {
    std::optional<MonotonicTime> last_inventory, last_smart;
    while (true) {
      const MonotonicTime now = clock_.Monotonic();
      bool inventory = !last_inventory || now - *last_inventory >= options_.inventory_interval;
      {
        MutexLock lock(mutex_);
        if (stop_) return;
        inventory = inventory || std::exchange(inventory_due_, false);
      }
      if (inventory) {
        last_inventory = now;
        ReadStacks();
      }
      // A disk that was just found is asked at once.
      if (inventory || !last_smart || now - *last_smart >= options_.smart_interval) {
        last_smart = now;
        ReadSmart();
      }
      const absl::Duration until_smart =
          options_.smart_interval - (clock_.Monotonic() - *last_smart);
      MutexLock lock(mutex_);
      changed_.WaitFor(mutex_, std::max(until_smart, absl::Milliseconds(100)),
                       [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_ || inventory_due_; });
    }
  }

  void ReadStacks() {
    std::vector<std::shared_ptr<Target>> targets;
    {
      MutexLock lock(mutex_);
      for (const auto& [role, target] : targets_) targets.push_back(target);
    }
    for (const std::shared_ptr<Target>& target : targets) {
      const auto facts = target->path_call.Run(
          "disk-path", [path = target->directory] { return ReadPathFacts(path); }, kPathPatience);
      std::string path;
      {
        MutexLock lock(mutex_);
        if (stop_) return;
        if (facts && !facts->real_path.empty()) target->real_path = facts->real_path;
        if (facts && facts->space) {
          target->space = facts->space;
          target->space->time = {.captured_at = clock_.Now(), .monotonic = clock_.Monotonic()};
        }
        path = target->real_path.empty() ? target->directory : target->real_path;
      }
      absl::StatusOr<StorageStack> stack = ReadStorageStack(options_.roots, path);
      MutexLock lock(mutex_);
      if (stack.ok() && !LostItsDisk(target->stack, *stack)) target->stack = *std::move(stack);
      publish_ = true;
    }
    TellOfDisks();
  }

  // A mounted file system whose disk has left the bus: sysfs shows none any more.
  static bool LostItsDisk(const std::optional<StorageStack>& before, const StorageStack& now) {
    return before && !before->disks.empty() && now.disks.empty() &&
           before->mount.major == now.mount.major && before->mount.minor == now.mount.minor;
  }

  void TellOfDisks() {
    std::vector<StorageStack> stacks;
    std::map<std::string, DiskFacts> facts;
    {
      MutexLock lock(mutex_);
      for (const auto& [role, target] : targets_) {
        if (!target->stack) continue;
        stacks.push_back(*target->stack);
        for (const DiskInfo& disk : target->stack->disks) {
          DiskFacts& each = facts[disk.name];
          each.serial = disk.serial;
          each.path = base::JoinPath(options_.roots.dev, disk.name);
          each.roles.insert(role);
        }
      }
    }
    kernel_.Watch(stacks);
    std::set<std::string> names;
    for (const auto& [name, each] : facts) names.insert(name);
    slow_.KeepOnly(names);
    desk_.SetDisks(std::move(facts));
  }

  KernelSourcesOptions KernelOptions() {
    KernelSourcesOptions kernel;
    kernel.roots = options_.roots;
    if (options_.kernel_log) kernel.kernel_log = std::move(*options_.kernel_log);
    kernel.stalled_after = options_.limits.stall_after;
    return kernel;
  }

  void ReadSmart() {
    std::map<std::string, DiskInfo> disks;
    {
      MutexLock lock(mutex_);
      for (const auto& [role, target] : targets_) {
        if (!target->stack) continue;
        for (const DiskInfo& disk : target->stack->disks) disks[disk.name] = disk;
      }
    }
    std::set<std::string> names;
    for (const auto& [name, disk] : disks) names.insert(name);
    smart_.ForgetOthers(names);
    for (const auto& [name, disk] : disks) {
      {
        MutexLock lock(mutex_);
        if (stop_) return;
      }
      smart_.Refresh(disk);
    }
  }

  DiskMonitorOptions options_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  base::Clock& clock_;
  SmartWatch smart_;
  FaultDesk desk_;
  KernelSources kernel_;
  SlowWatch slow_{[this](Evidence evidence) { desk_.Take(std::move(evidence)); }};

  base::Mutex mutex_;  // never held while something may hang
  base::CondVar changed_;
  std::map<std::string, std::shared_ptr<Target>> targets_ ABSL_GUARDED_BY(mutex_);
  bool publish_ ABSL_GUARDED_BY(mutex_) = true;
  bool inventory_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;

  base::Thread supervisor_;  // last: they use everything above
  base::Thread inventory_;
};

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
void DiskMonitor::SetPeers(const std::vector<PeerExcess>& peers) { impl_->SetPeers(peers); }
std::string DiskMonitor::DirectoryOf(const std::string& role) const {
  return impl_->DirectoryOf(role);
}

}  // namespace metal::disk
