// The inventory thread: slow sources, each with a deadline.
#include <sys/statvfs.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <set>

#include "agent/base/file.h"
#include "agent/disk/disk_monitor_impl.h"

namespace metal::disk {
namespace {

// Together with LogWatch's patience below the second in which the monitor must end.
constexpr absl::Duration kPathPatience = absl::Milliseconds(300);

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

// A mounted file system whose disk has left the bus: sysfs shows none any more.
bool LostItsDisk(const std::optional<StorageStack>& before, const StorageStack& now) {
  return before && !before->disks.empty() && now.disks.empty() &&
         before->mount.major == now.mount.major && before->mount.minor == now.mount.minor;
}

}  // namespace

void DiskMonitor::Impl::TakeInventory() {
  std::optional<base::MonotonicTime> last_inventory, last_drives;
  while (true) {
    const base::MonotonicTime now = clock_.Monotonic();
    bool inventory = !last_inventory || now - *last_inventory >= options_.inventory_interval;
    {
      base::MutexLock lock(mutex_);
      if (stop_) return;
      inventory = inventory || std::exchange(inventory_due_, false);
    }
    if (inventory) {
      last_inventory = now;
      ReadStacks();
    }
    // A disk that was just found is asked at once.
    if (inventory || !last_drives || now - *last_drives >= options_.smart_interval) {
      last_drives = now;
      ReadDrives();
    }
    const absl::Duration until_drives =
        options_.smart_interval - (clock_.Monotonic() - *last_drives);
    base::MutexLock lock(mutex_);
    changed_.WaitFor(mutex_, std::max(until_drives, absl::Milliseconds(100)),
                     [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_ || inventory_due_; });
  }
}

void DiskMonitor::Impl::ReadStacks() {
  std::vector<std::shared_ptr<Target>> targets;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [role, target] : targets_) targets.push_back(target);
  }
  for (const std::shared_ptr<Target>& target : targets) {
    const auto facts = target->path_call.Run(
        "disk-path", [path = target->directory] { return ReadPathFacts(path); }, kPathPatience);
    std::string path;
    {
      base::MutexLock lock(mutex_);
      if (stop_) return;
      if (facts && !facts->real_path.empty()) target->real_path = facts->real_path;
      if (facts && facts->space) {
        target->space = facts->space;
        target->space->time = {.captured_at = clock_.Now(), .monotonic = clock_.Monotonic()};
      }
      path = target->real_path.empty() ? target->directory : target->real_path;
    }
    absl::StatusOr<StorageStack> stack = ReadStorageStack(options_.roots, path);
    base::MutexLock lock(mutex_);
    if (stack.ok() && !LostItsDisk(target->stack, *stack)) target->stack = *std::move(stack);
    publish_ = true;
  }
  TellOfDisks();
}

void DiskMonitor::Impl::TellOfDisks() {
  std::vector<StorageStack> stacks;
  std::map<std::string, DiskFacts> facts;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [role, target] : targets_) {
      if (!target->stack) continue;
      stacks.push_back(*target->stack);
      // The kernel speaks of volumes by their own names.
      for (const std::string& layer : target->stack->layers) {
        DiskFacts& each = facts[layer];
        each.path = base::JoinPath(options_.roots.dev, layer);
        each.roles.insert(role);
      }
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

void DiskMonitor::Impl::ReadDrives() {
  std::map<std::string, DiskInfo> disks;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [role, target] : targets_) {
      if (!target->stack) continue;
      for (const DiskInfo& disk : target->stack->disks) disks[disk.name] = disk;
    }
  }
  std::set<std::string> names;
  for (const auto& [name, disk] : disks) names.insert(name);
  drives_.ForgetOthers(names);
  for (const auto& [name, disk] : disks) {
    {
      base::MutexLock lock(mutex_);
      if (stop_) return;
    }
    drives_.Refresh(WatchedDriveOf(options_.roots, disk));
  }
}

}  // namespace metal::disk
