// The inventory thread: slow sources, each with a deadline.
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <set>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/disk/disk_monitor_impl.h"

namespace metal::disk {
namespace {

// Together with LogWatch's patience below the second in which the monitor must end.
constexpr absl::Duration kPathPatience = absl::Milliseconds(300);
constexpr absl::Duration kHistoryPatience = absl::Milliseconds(200);
constexpr absl::Duration kRecordPatience = absl::Milliseconds(200);

PathFacts ReadPathFacts(const std::string& path) {
  PathFacts facts;
  char real[PATH_MAX];
  if (realpath(path.c_str(), real) != nullptr) facts.real_path = real;
  if (auto room = base::ReadFilesystemRoom(path); room.ok()) facts.room = *room;
  return facts;
}

// A mounted file system whose disk has left the bus: sysfs shows none any more.
bool LostItsDisk(const std::optional<StorageStack>& before, const StorageStack& now) {
  return before && !before->disks.empty() && now.disks.empty() &&
         before->mount.major == now.mount.major && before->mount.minor == now.mount.minor;
}

}  // namespace

void DiskMonitor::Impl::TakeInventory() {
  std::optional<base::MonotonicTime> last_inventory, last_drives, last_space;
  LoadSpaceHistory();
  while (true) {
    const base::MonotonicTime now = clock_.Monotonic();
    bool inventory = !last_inventory || now - *last_inventory >= options_.inventory_interval;
    {
      base::MutexLock lock(mutex_);
      if (stop_) return;
      inventory = inventory || std::exchange(inventory_due_, false);
    }
    LoadRecord();
    if (inventory) {
      last_inventory = now;
      ReadStacks();
    }
    if (inventory || !last_space || now - *last_space >= options_.space_interval) {
      last_space = now;
      ReadSpace();
    }
    ShareProbers();
    NoteDrives();
    // A disk that was just found is asked at once.
    if (inventory || !last_drives || now - *last_drives >= options_.smart_interval) {
      last_drives = now;
      ReadDrives();
    }
    {
      base::MutexLock lock(mutex_);
      if (stop_) return;
    }
    KeepLearned();
    // What cannot be stored is tried again with the next look.
    SaveRecord(kRecordPatience).IgnoreError();
    const base::MonotonicTime done = clock_.Monotonic();
    const absl::Duration until_next = std::min(options_.smart_interval - (done - *last_drives),
                                               options_.space_interval - (done - *last_space));
    base::MutexLock lock(mutex_);
    changed_.WaitFor(mutex_, std::max(until_next, absl::Milliseconds(100)),
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
    LookAtPath(*target);
    std::string path;
    {
      base::MutexLock lock(mutex_);
      if (stop_) return;
      path = target->real_path.empty() ? target->directory : target->real_path;
    }
    absl::StatusOr<StorageStack> stack = ReadStorageStack(options_.roots, path);
    base::MutexLock lock(mutex_);
    if (stack.ok() && !LostItsDisk(target->stack, *stack)) target->stack = *std::move(stack);
    publish_ = true;
  }
  TellOfDisks();
}

bool DiskMonitor::Impl::LookAtPath(Target& target) {
  const auto facts = target.path_call.Run(
      "disk-path", [path = target.directory] { return ReadPathFacts(path); }, kPathPatience);
  if (!facts) return false;
  base::MutexLock lock(mutex_);
  if (!facts->real_path.empty()) target.real_path = facts->real_path;
  if (!facts->room) return false;
  target.space = FilesystemSpace{*facts->room, {}};
  target.space->time = {.captured_at = clock_.Now(), .monotonic = clock_.Monotonic()};
  return true;
}

void DiskMonitor::Impl::ReadSpace() {
  std::map<std::string, std::shared_ptr<Target>> targets;
  {
    base::MutexLock lock(mutex_);
    targets = targets_;
  }
  std::vector<RoomView> views;
  for (const auto& [role, target] : targets) {
    if (!LookAtPath(*target)) continue;  // what hangs tells nothing
    base::MutexLock lock(mutex_);
    if (stop_) return;
    // Before its disk is known a fault would be shown under another name than later.
    if (!target->stack) continue;
    const std::vector<DiskInfo>& disks = target->stack->disks;
    views.push_back({.role = role,
                     .device = disks.empty() ? "" : disks.front().name,
                     .mount_point = target->stack->mount.mount_point,
                     .room = *target->space});
  }
  Findings findings = space_.Observe(views, clock_.Now());
  {
    base::MutexLock lock(mutex_);
    for (const auto& [role, target] : targets) {
      if (target->space) target->room = space_.SectionOf(target->space->id);
    }
  }
  for (observe::Event& event : findings.events) events_.Append(std::move(event));
  for (Evidence& evidence : findings.evidence) desk_.Take(std::move(evidence));
  if (space_.TakeChanged()) SaveSpaceHistory();
}

// Of the state directory, whose disk may hang as well. Without it the forecast begins anew.
void DiskMonitor::Impl::LoadSpaceHistory() {
  if (options_.space_history.empty()) return;
  DetachedCall<std::string> call;
  const auto text = call.Run(
      "space-history",
      [path = options_.space_history] { return base::ReadFile(path).value_or(""); },
      kHistoryPatience);
  if (text) space_.Restore(*text);
}

void DiskMonitor::Impl::SaveSpaceHistory() {
  if (options_.space_history.empty()) return;
  const auto saved = space_save_.Run(
      "space-history",
      [path = options_.space_history, text = space_.Encode()] {
        return base::WriteFileDurably(path, text);
      },
      kHistoryPatience);
  if (saved && !saved->ok()) {
    base::LogWarning("event=space_history message=\"{}\"", std::string(saved->message()));
  }
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
  std::map<std::string, DriveIdentity> expected;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [role, target] : targets_) {
      if (!target->stack) continue;
      for (const DiskInfo& disk : target->stack->disks) disks[disk.name] = disk;
    }
    expected = ExpectedDrives();
  }
  std::set<std::string> names;
  for (const auto& [name, disk] : disks) names.insert(name);
  drives_.ForgetOthers(names);
  for (const auto& [name, disk] : disks) {
    {
      base::MutexLock lock(mutex_);
      if (stop_) return;
    }
    WatchedDrive watched = WatchedDriveOf(options_.roots, disk);
    if (const auto noted = expected.find(name); noted != expected.end()) {
      watched.noted = noted->second;
    }
    drives_.Refresh(watched);
  }
}

}  // namespace metal::disk
