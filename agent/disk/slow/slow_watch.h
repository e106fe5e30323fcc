// SlowWatch: a slow detector for each disk of the node, fed once a second, with what the shard's
// other members told of theirs. Hands its verdicts in as evidence: of the detector once the drive
// is slow by its own past, and of the peers when they confirm it.
// Threading: thread-safe; no I/O.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/slow/slow_detector.h"
#include "agent/observe/status_board.h"

namespace metal::disk {

// One disk's last second.
struct DiskSecond {
  std::string disk;
  std::string
      drive;  // what names it for good: world-wide name, or model and serial; empty: nothing
  std::set<std::string> roles;            // what lies there
  std::vector<absl::Duration> latencies;  // of its probes, with the ages of what is outstanding
  double bytes_per_second = 0;            // what the device read and wrote
};

// What another member of the shard says of its disk with that role.
struct PeerExcess {
  std::string node, role;
  LatencyExcess excess;
};

class SlowWatch {
 public:
  explicit SlowWatch(std::function<void(Evidence)> sink, SlowLimits limits = {})
      : sink_(std::move(sink)), limits_(limits) {}

  // A second without a latency is left out. Another drive under a known name begins anew, or with
  // what was learned of it.
  void Observe(DiskSecond second, base::MonotonicTime now);
  // Each counts for 10 s.
  void SetPeers(const std::vector<PeerExcess>& peers, base::MonotonicTime now);
  // Others are not watched any more.
  void KeepOnly(const std::set<std::string>& disks);
  // What was learned of every drive that has a name of its own; of one that is not there any more
  // for thirty days.
  LearnedDrives Learned(absl::Time now);
  // What an earlier agent learned; where more was learned of a drive since, that stays.
  void Recall(const LearnedDrives& learned);
  // As this disk is now is right: it is learned anew, and not slow by what was.
  void Forget(const std::string& disk);
  // nullopt: that disk was never observed.
  std::optional<observe::SlownessSection> SectionOf(const std::string& disk) const;

 private:
  struct Watched {
    std::string drive;
    SlowDetector detector;
    bool told = false, told_peers = false;  // handed in and not withdrawn
  };
  struct Peer {
    LatencyExcess excess;
    base::MonotonicTime at;
  };

  void Remember(const Watched& watched) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RecallFor(Watched& watched) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // No name at all, or one that another disk has too (namespaces of one controller, some clouds).
  bool IsNameless(const Watched& watched) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<LatencyExcess> PeersOf(const std::set<std::string>& roles, base::MonotonicTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(const std::string& disk, Watched& watched) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellAs(Witness witness, bool wanted, bool& told, const std::string& disk,
              const SlowVerdict& verdict) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<void(Evidence)> sink_;
  const SlowLimits limits_;
  mutable base::Mutex mutex_;
  std::map<std::string, Watched> disks_ ABSL_GUARDED_BY(mutex_);
  LearnedDrives learned_ ABSL_GUARDED_BY(mutex_);  // of drives that are there: as it was once
  std::map<std::pair<std::string, std::string>, Peer> peers_
      ABSL_GUARDED_BY(mutex_);  // by role and node
};

}  // namespace metal::disk
