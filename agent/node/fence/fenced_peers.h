// Other members of the shard that are fenced because of their disks, as whoever watches the shard
// tells it (StorageService.TellPeers). Threading: thread-safe; no I/O.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"

namespace metal::node {

class FencedPeers {
 public:
  // What was told counts for as long as this; a peer of which nobody tells is not visible.
  static constexpr absl::Duration kFresh = absl::Seconds(10);

  void Told(const std::vector<std::string>& nodes, base::MonotonicTime now);
  // Their names, sorted.
  std::vector<std::string> Visible(base::MonotonicTime now);

 private:
  base::Mutex mutex_;
  std::map<std::string, base::MonotonicTime> told_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::node
