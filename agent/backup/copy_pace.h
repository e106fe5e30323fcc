// CopyPace: how fast this node's backups and the clones that it serves may read the data directory,
// all of them together. A fixed limit where one is configured; and with a bound for the disk's
// latency as much less as keeps the disk's probes within it. A probe is a small direct read or a
// durable write, and waits as PostgreSQL's own do, so what it waits for is the harm that copies
// do. WAL that waits for the archiver in growing number is harm too: archiving outranks backups.
// A drive that is too hot is spared what can wait, whatever is configured.
// Threading: thread-safe; only Adjust may wait, for the event log.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/throttle.h"
#include "agent/observe/event_log.h"

namespace metal::backup {

struct CopyPaceOptions {
  uint64_t rate_limit = 0;     // bytes per second; 0: none
  absl::Duration latency_max;  // of the disk's probes; zero: nobody looks
  // What copies get at least, however busy the disk is: a backup has to end.
  uint64_t rate_least = 8 << 20;
};

class CopyPace {
 public:
  // `clock` and `events` outlive it.
  CopyPace(CopyPaceOptions options, base::Clock& clock, observe::EventLog& events);

  // Of all copies together: theirs are parts of it.
  base::Throttle& throttle() { return throttle_; }

  // How long probes of the data directory's disk took.
  void Observe(std::span<const absl::Duration> latencies);
  // Chooses the rate anew from what was observed; `segments_waiting`: for the archiver; `hot`: a
  // drive of the database says that it is. To be called every second; oftener is harmless.
  void Adjust(uint64_t segments_waiting, bool hot = false);

  // Bytes per second that copies may read now; 0: no limit.
  uint64_t rate() const;

 private:
  struct Seen {
    absl::Duration latency;  // upper quartile of the last probes
    bool archive_grows = false;
    bool hot = false;
    uint64_t bytes_per_second = 0;  // of all copies
  };
  bool WatchesLatency() const { return options_.latency_max > absl::ZeroDuration(); }
  std::optional<Seen> Look(uint64_t segments_waiting, bool hot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t Choose(const Seen& seen) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(uint64_t before, uint64_t now, const Seen& seen);

  const CopyPaceOptions options_;
  base::Clock& clock_;
  observe::EventLog& events_;
  base::Throttle throttle_;
  mutable base::Mutex mutex_;
  uint64_t rate_ ABSL_GUARDED_BY(mutex_);                         // what throttle_ has
  std::deque<absl::Duration> latencies_ ABSL_GUARDED_BY(mutex_);  // under the present rate
  bool of_before_ ABSL_GUARDED_BY(mutex_) = false;  // those of the next Observe are of before it
  // When it was last made slower for a hot drive; nullopt: the drive is not.
  std::optional<base::MonotonicTime> spared_ ABSL_GUARDED_BY(mutex_);
  int unused_ ABSL_GUARDED_BY(mutex_) = 0;  // looks in a row that found it hardly used
  // Of the last look:
  base::MonotonicTime looked_ ABSL_GUARDED_BY(mutex_);
  base::MonotonicTime copied_ ABSL_GUARDED_BY(mutex_);  // the last one that found something read
  uint64_t booked_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t segments_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace metal::backup
