#include "agent/node/fence/watchdog_feeder.h"

#include <algorithm>

#include "agent/node/database_role.h"
#include "agent/node/emit.h"
#include "fmt/format.h"

namespace metal::node {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(1);
constexpr absl::Duration kInterval = absl::Seconds(1);
constexpr absl::Duration kOld = absl::Seconds(10);  // of what the disk monitor publishes every 2 s
constexpr std::string_view kDirectory = "/dev/";

}  // namespace

bool ProbesComeBack(const observe::NodeStatus& status, base::MonotonicTime now) {
  bool any = false;
  for (const observe::DiskSection& disk : status.disks) {
    for (const observe::ProbeSection& probe : disk.probes) {
      if (!IsDatabaseRole(probe.role) || probe.state == "unsupported") continue;
      if (probe.state == "stalled" || probe.state == "unknown") return false;
      if (now - disk.time.monotonic > kOld) return false;
      any = true;
    }
  }
  return any;
}

bool ProbeHangs(const observe::NodeStatus& status) {
  return std::ranges::any_of(status.disks, [](const observe::DiskSection& disk) {
    return std::ranges::any_of(disk.probes,
                               [](const auto& each) { return each.state == "stalled"; });
  });
}

WatchdogFeeder::WatchdogFeeder(disk::PrivilegedHelper* helper, const std::string& device,
                               absl::Duration time_to_reset, observe::EventLog& events,
                               base::Clock& clock)
    : helper_(helper),
      name_(device.starts_with(kDirectory) ? device.substr(kDirectory.size()) : device),
      time_to_reset_(time_to_reset),
      events_(events),
      clock_(clock) {}

WatchdogFeeder::~WatchdogFeeder() {
  if (started_) (void)helper_->StopWatchdog(kPatience);
}

void WatchdogFeeder::Look(bool needed, bool probes_come_back) {
  if (name_.empty() || helper_ == nullptr) return;
  if (!needed) {
    if (started_) Stop();
    return;
  }
  if (clock_.Monotonic() < next_) return;
  next_ = clock_.Monotonic() + kInterval;
  if (probes_come_back) return Feed();
  if (!started_ || starved_) return;
  starved_ = true;
  Emit(events_, observe::Severity::kCritical, "watchdog.starved", name_,
       fmt::format("the probes do not come back: {} resets this host within {}", name_,
                   absl::FormatDuration(time_to_reset_)));
}

void WatchdogFeeder::Feed() {
  const absl::Status fed = helper_->FeedWatchdog(name_, time_to_reset_, kPatience);
  if (!fed.ok()) {
    if (failure_ == fed.message()) return;
    failure_ = std::string(fed.message());
    Emit(events_, observe::Severity::kError, "watchdog.failed", name_,
         fmt::format("feed {}: {}", name_, failure_));
    return;
  }
  failure_.clear();
  if (!started_ || starved_) {
    Emit(events_, observe::Severity::kInfo, "watchdog.started", name_,
         fmt::format("{} resets this host when the disks of its primary do not answer for {}",
                     name_, absl::FormatDuration(time_to_reset_)));
  }
  started_ = true;
  starved_ = false;
}

void WatchdogFeeder::Stop() {
  const absl::Status stopped = helper_->StopWatchdog(kPatience);
  if (!stopped.ok()) {
    if (failure_ == stopped.message()) return;
    failure_ = std::string(stopped.message());
    Emit(events_, observe::Severity::kError, "watchdog.failed", name_,
         fmt::format("stop {}: {}", name_, failure_));
    return;
  }
  started_ = starved_ = false;
  failure_.clear();
  Emit(events_, observe::Severity::kInfo, "watchdog.stopped", name_,
       "this node is no primary any more");
}

}  // namespace metal::node
