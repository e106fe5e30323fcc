// The supervisor's thread: looks at clocks and counters, touches no disk.
#include <algorithm>
#include <map>
#include <utility>

#include "agent/disk/disk_monitor_impl.h"
#include "agent/disk/probe_evidence.h"
#include "agent/disk/sources/pressure.h"
#include "agent/disk/tick_guard.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kLongestNap = absl::Seconds(1);  // of the thread, beside its tick
constexpr absl::Duration kDeskInterval = absl::Seconds(1);

// The namespaces of one NVMe controller have its serial number, and names of their own.
std::string NameForGood(const DiskInfo& disk) {
  if (!disk.wwid.empty()) return disk.wwid;
  return disk.serial.empty() ? "" : disk.model + " " + disk.serial;
}

}  // namespace

void DiskMonitor::Impl::Supervise() {
  base::MonotonicTime last_publish = clock_.Monotonic(), last_desk = last_publish;
  TickGuard guard(options_.tick + kLongestNap);
  base::MutexLock lock(mutex_);
  while (!stop_) {
    const base::MonotonicTime now = clock_.Monotonic();
    if (guard.Awake(now)) {
      for (auto& [role, target] : targets_) Judge(role, *target);
    }
    if (now - last_desk >= kDeskInterval) {
      last_desk = now;
      desk_.Tick();
      RepeatStates();
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

void DiskMonitor::Impl::Judge(const std::string& role, Target& target) {
  if (!target.prober) return;
  const ProbeState from = target.machine.state();
  const ProbeFault fault_before = target.machine.fault();
  const base::MonotonicTime now = clock_.Monotonic();
  const ProbeObservation observation = target.prober->Observe();
  target.machine.Observe(observation, now);
  HandInErrors(role, target, observation.errors);
  if (target.machine.state() == from && target.machine.fault() == fault_before) return;
  const absl::Duration time_in_from = now - target.state_since_monotonic;
  target.state_since = clock_.Now();
  target.state_since_monotonic = now;
  publish_ = true;
  const TargetView view = ViewOf(role, target);
  HandIn(target, EvidenceOf(view));
  if (auto event = EventOfChange(view, from, time_in_from)) events_.Append(*std::move(event));
}

void DiskMonitor::Impl::HandIn(Target& target, std::optional<Evidence> evidence) {
  const bool other =
      target.handed_in && (!evidence || evidence->fault_class != target.handed_in->fault_class);
  if (other) desk_.Take(Withdrawn(*target.handed_in, target.machine.state()));
  if (evidence) desk_.Take(*evidence);
  target.handed_in = std::move(evidence);
}

void DiskMonitor::Impl::HandInErrors(const std::string& role, Target& target, uint64_t errors) {
  const uint64_t told = std::exchange(target.errors_told, errors);
  if (target.borrowed || errors <= told) return;
  auto evidence = ErrorEvidenceOf(ViewOf(role, target), errors - told);
  if (!evidence) return;
  evidence->time = clock_.Now();
  desk_.Take(*std::move(evidence));
}

void DiskMonitor::Impl::RepeatStates() {
  for (auto& [role, target] : targets_) {
    if (!target->handed_in) continue;
    auto evidence = EvidenceOf(ViewOf(role, *target));
    if (!evidence || evidence->fault_class != target->handed_in->fault_class) continue;
    evidence->time = clock_.Now();
    desk_.Take(*std::move(evidence));
  }
}

void DiskMonitor::Impl::ObserveSpeed(base::MonotonicTime now) {
  std::map<std::string, DiskSecond> seconds;
  for (const auto& [role, target] : targets_) {
    if (!target->prober || !target->stack || target->stack->disks.empty()) continue;
    const DiskInfo& disk = target->stack->disks.front();
    DiskSecond& second = seconds[disk.name];
    second.disk = disk.name;
    second.drive = NameForGood(disk);
    second.roles.insert(role);
    const std::vector<absl::Duration> latencies = target->prober->TakeLatencies();
    if (options_.probe_latencies) options_.probe_latencies(role, latencies);
    second.latencies.insert(second.latencies.end(), latencies.begin(), latencies.end());
  }
  for (auto& [name, second] : seconds) {
    const auto activity = kernel_.ActivityOf(name);
    if (!activity) continue;
    second.bytes_per_second = activity->bytes_per_second();
    slow_.Observe(std::move(second), now);
  }
}

TargetView DiskMonitor::Impl::ViewOf(const std::string& role, Target& target) {
  TargetView view;
  view.role = role;
  view.directory = target.directory;
  view.state_since = target.state_since;
  view.stack = target.stack;
  view.space = target.space;
  view.room = target.room;
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

void DiskMonitor::Impl::Publish(base::MonotonicTime now) {
  std::vector<TargetView> views;
  for (auto& [role, target] : targets_) views.push_back(ViewOf(role, *target));
  auto sections = BuildDiskSections(views, SmartSectionsOf(drives_.Reports()),
                                    {.captured_at = clock_.Now(), .monotonic = now});
  for (observe::DiskSection& section : sections) {
    section.slowness = slow_.SectionOf(section.device);
    if (const auto activity = kernel_.ActivityOf(section.device)) {
      section.activity = SectionOf(*activity);
    }
  }
  observe::PressureSection pressure = ReadPressure(options_.roots);
  pressure.time = {.captured_at = clock_.Now(), .monotonic = now};
  board_.Update([&](observe::NodeStatus& status) {
    status.disks = std::move(sections);
    status.pressure = pressure;
  });
}

}  // namespace metal::disk
