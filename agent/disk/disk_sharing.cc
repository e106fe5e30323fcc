// One prober for all directories on a file system: each of its own would ask the same device for
// the same answer, and write a file more.
#include <algorithm>
#include <map>
#include <tuple>

#include "agent/disk/disk_monitor_impl.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kStopPatience = absl::Milliseconds(200);

// By its own id and by the device that is mounted: copies of a file system have the same id.
using FilesystemKey = std::tuple<uint64_t, uint32_t, uint32_t>;

std::optional<FilesystemKey> FilesystemOf(const Target& target) {
  if (!target.space || target.space->id == 0 || !target.stack) return std::nullopt;
  const Mount& mount = target.stack->mount;
  return FilesystemKey{target.space->id, mount.major, mount.minor};
}

void Borrow(Target& target, const Target& lender) {
  target.prober = lender.prober;
  target.borrowed = true;
  target.machine.Follow(target.prober->Observe());
}

}  // namespace

void DiskMonitor::Impl::ShareProbers() {
  std::vector<std::shared_ptr<Prober>> spare;
  {
    base::MutexLock lock(mutex_);
    std::map<FilesystemKey, std::shared_ptr<Target>> lenders;
    for (const auto& [role, target] : targets_) {
      const auto filesystem = FilesystemOf(*target);
      const bool sound = target->prober && target->machine.state() == ProbeState::kHealthy;
      if (filesystem && sound && !target->borrowed) lenders.emplace(*filesystem, target);
    }
    for (const auto& [role, target] : targets_) {
      const auto filesystem = FilesystemOf(*target);
      if (!filesystem || !target->prober || target->borrowed) continue;
      const auto lender = lenders.find(*filesystem);
      // One that sees something keeps its own: it is a witness.
      if (lender == lenders.end() || lender->second == target) continue;
      if (target->machine.state() != ProbeState::kHealthy) continue;
      spare.push_back(target->prober);
      // It may itself have lent it, while the lender was not healthy yet.
      for (const auto& [other_role, other] : targets_) {
        if (other->prober == spare.back()) Borrow(*other, *lender->second);
      }
    }
  }
  for (const auto& prober : spare) prober->AskToStop();
  for (const auto& prober : spare) prober->Stop(kStopPatience);
}

void DiskMonitor::Impl::ReturnProber(const Target& lender) {
  if (!lender.prober || lender.borrowed) return;
  for (auto& [role, target] : targets_) {
    if (!target->borrowed || target->prober != lender.prober) continue;
    auto fresh = Unprobed(*target);
    fresh->handed_in = std::move(target->handed_in);  // withdrawn once its own probes know better
    fresh->prober = MakeProber(role, fresh->directory);
    target = std::move(fresh);
  }
}

}  // namespace metal::disk
