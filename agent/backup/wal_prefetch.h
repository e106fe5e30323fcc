// Decodes the WAL segments that a recovery will ask for next, into unnamed files that its earlier
// requests brought along, while PostgreSQL replays. A hit costs the recovery a descriptor and a
// link. The files have no names and belong to the recovery's filesystem: whatever dies, nothing is
// left. Threading: thread-safe; Run occupies one thread, which may hang with a disk.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "agent/backup/wal_archive.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/mutex.h"

namespace metal::backup {

class WalPrefetcher {
 public:
  static constexpr size_t kMaxSegments = 8;                     // of all recoveries together
  static constexpr uint64_t kMaxSegmentSize = 64 * base::kMiB;  // larger ones are not prefetched
  static constexpr absl::Duration kKeep = absl::Seconds(60);    // then nobody wants it any more

  WalPrefetcher(std::shared_ptr<WalArchive> archive, base::Clock& clock)
      : archive_(std::move(archive)), clock_(clock) {}

  // The complete file when it was prefetched for this filesystem; waits up to `timeout` while it is
  // being written. Invalid when there is none.
  base::UniqueFd Take(uint64_t system_identifier, std::string_view name, dev_t device,
                      absl::Duration timeout);

  // Asks for the segments after `name` of this cluster, one for each empty file in `spares`; those
  // that are on their way already need none. Forgets segments up to `name`.
  void Schedule(uint64_t system_identifier, std::string_view name, uint64_t segment_size,
                dev_t device, std::vector<base::UniqueFd> spares);

  // The thread's body; returns after Stop.
  void Run();
  void Stop();
  uint64_t hits();

 private:
  enum class State { kWaiting, kWorking, kReady };
  struct Segment {
    uint64_t system_identifier = 0;
    std::string name;
    dev_t device = 0;
    State state = State::kWaiting;
    base::UniqueFd file;
    base::MonotonicTime since;
  };
  using Segments = std::deque<std::shared_ptr<Segment>>;

  Segments::iterator Find(uint64_t system_identifier, std::string_view name, dev_t device)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropOld() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(const std::shared_ptr<Segment>& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Decode(const Segment& segment);

  const std::shared_ptr<WalArchive> archive_;
  base::Clock& clock_;
  base::Mutex mutex_;  // never held during I/O
  base::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t hits_ ABSL_GUARDED_BY(mutex_) = 0;
  Segments segments_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::backup
