// KernelSources: the passive sources of the kernel. They listen and read what the kernel knows
// anyway, and ask no drive.
//   kernel log      /dev/kmsg                            (kernel_log.h)
//   device events   netlink                              (uevent.h)
//   state, link     /sys/class/block, /sys/class/nvme    (sysfs_watch.h)
//   throughput      /sys/block/X/stat, inflight          (block_stat.h)
//   file systems    fanotify, mount options, XFS retries (filesystem.h)
// Threads: one that waits for the kernel log, device events and errors of file systems, and one for
// each disk that reads sysfs (disk_sampler.h).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/disk/inventory.h"
#include "agent/disk/privileged.h"
#include "agent/disk/sources/block_stat.h"
#include "agent/disk/sources/outlet.h"
#include "agent/observe/event_log.h"

namespace metal::disk {

struct KernelSourcesOptions {
  SysRoots roots;
  // Not valid: the helper is asked for it; without a helper the log is not watched.
  base::UniqueFd kernel_log;
  absl::Duration sample_interval = absl::Seconds(1);
  absl::Duration look_interval = absl::Seconds(5);
  absl::Duration stalled_after = absl::Seconds(3);
  // May be null: then no errors of file systems are heard of, and XFS keeps its settings.
  PrivilegedHelper* helper = nullptr;
  std::optional<XfsRetryLimits> xfs_retries;  // nullopt: XFS keeps its settings
  // Is told of lines of the kernel's log that no event tells (kernel_log.h); may be null.
  KernelLineSink lines = nullptr;
  bool trust_all_facilities = false;  // for tests, which cannot speak as the kernel
};

// Threading: thread-safe. `events` and the helper outlive it; `clock` outlives the process.
class KernelSources {
 public:
  KernelSources(KernelSourcesOptions options, EvidenceSink sink, observe::EventLog& events,
                base::Clock& clock);
  // Ends within 1 s: a thread that hangs in a device is left behind. The sink is not called
  // afterwards.
  ~KernelSources();
  KernelSources(const KernelSources&) = delete;
  KernelSources& operator=(const KernelSources&) = delete;

  // The disks under these directories are watched from now on, and no others. A disk of the same
  // name and serial number keeps its history. A mount whose disks sysfs shows no more keeps those
  // it had: what is gone stays watched. Asks the helper for what is new, up
  // to 2 s each time: not for the status path; one caller at a time.
  void Watch(const std::vector<StorageStack>& stacks);

  // The disk's latest second: its bytes_per_second() is the slow detector's. nullopt: not watched,
  // no two samples yet, or sysfs does not answer.
  std::optional<BlockActivity> ActivityOf(const std::string& disk) const;
  // Sources that do not work here, and why: "kernel_log", "uevent", "filesystem:nvme0n1p1",
  // "xfs_retries:nvme0n1p1".
  std::map<std::string, std::string> unsupported() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace metal::disk
