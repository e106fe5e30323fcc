// DiskSampler: looks at one disk's files in sysfs: stat and inflight every second, its state and
// that of its file systems every few seconds, both at once when somebody else saw something.
// One thread, which asks the drive nothing but may hang with a PCIe function that is dying; then it
// is left behind with all it uses.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/inventory.h"
#include "agent/disk/sources/block_stat.h"
#include "agent/disk/sources/filesystem.h"
#include "agent/disk/sources/loose_thread.h"
#include "agent/disk/sources/outlet.h"

namespace metal::disk {

struct DiskSamplerOptions {
  SysRoots roots;
  DiskInfo disk;
  absl::Duration sample_interval = absl::Seconds(1);
  absl::Duration look_interval = absl::Seconds(5);
  absl::Duration stalled_after = absl::Seconds(3);
};

// Threading: thread-safe. `clock` outlives the process.
class DiskSampler {
 public:
  DiskSampler(DiskSamplerOptions options, std::shared_ptr<Outlet> outlet, base::Clock& clock);
  // Tells the thread to end, without waiting. The destructor waits up to 300 ms since then.
  void Stop() { thread_.Stop(); }
  DiskSampler(const DiskSampler&) = delete;
  DiskSampler& operator=(const DiskSampler&) = delete;

  // The latest interval; nullopt when there is none younger than three intervals.
  std::optional<BlockActivity> activity() const;
  // Looks now. `came`: a device event says that the disk is there; when it has the serial number of
  // the one that was, the event's evidence of its going is cleared.
  void Look(bool came);
  // The mounted file systems to look at as well, all of them.
  void SetFilesystems(std::vector<FilesystemId> filesystems);

 private:
  struct State;
  const std::shared_ptr<State> state_;
  LooseThread thread_;
};

}  // namespace metal::disk
