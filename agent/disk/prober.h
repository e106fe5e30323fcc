// Prober: asks one directory's device, all the time and gently, whether it still reads and writes.
// A 4 KiB O_DIRECT read of a random place of its own 16 MiB file every `read_interval`, a stamped
// 4 KiB O_DIRECT|O_DSYNC write of one place every `write_interval`; io_uring, no blocking call
// once the file is open. At most 8 are outstanding; then no more are issued and their age tells
// the story. Deadlines are judged from outside, by whoever calls Observe(). A block read back that
// this prober wrote must hold what was written last: {node, role, block, sequence, crc}.
// Threading: the prober's own thread does all I/O and may hang with the device; every method is
// thread-safe and never waits for it, except Stop (bounded).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/disk/probe_device.h"
#include "agent/disk/probe_state.h"
#include "agent/observe/histogram.h"

namespace metal::disk {

struct ProbeSchedule {
  absl::Duration read_interval = absl::Milliseconds(500);
  absl::Duration write_interval = absl::Seconds(1);
  absl::Duration reopen_interval = absl::Seconds(10);  // after the file could not be prepared
  absl::Duration window = absl::Minutes(5);            // the histograms cover one to two windows
};

struct ProberOptions {
  std::string node_id;
  std::string role;
  ProbeSchedule schedule;
  absl::Duration late_after = absl::Milliseconds(250);
};

struct ProbeCounts {
  observe::LatencySummary read,
      write;  // of the present and the previous window; errors are not in them
  uint64_t read_errors = 0, write_errors = 0, late = 0;
  std::string last_error;
};

// What came back since the last look, and what is on its way: for one reader who looks each second.
struct RecentProbes {
  observe::LatencySummary read, write;  // errors are not in them
  uint64_t errors = 0, late = 0;        // since the start
  std::optional<absl::Duration> oldest_outstanding;
};

// A one-shot measurement: how much is asked for, and what came of it.
struct ProbeBurst {
  uint32_t reads = 0, writes = 0;  // asked for
  uint32_t reads_done = 0, writes_done = 0;
  uint64_t read_errors = 0, write_errors = 0;
  std::string last_error{};
  observe::LatencySummary read{}, write{};
};

class ProberCore;

class Prober {
 public:
  // Starts the thread, which opens the device. `clock` outlives the process.
  Prober(ProberOptions options, std::unique_ptr<ProbeDevice> device, base::Clock& clock);
  ~Prober();  // Stop(500 ms)
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  ProbeObservation Observe();
  std::string reason();  // of phases kUnavailable and kUnsupported; else empty
  ProbeCounts Counts();
  // Of the regular probes that completed since the last call, at most 64, and the ages of what is
  // outstanding. For one caller.
  std::vector<absl::Duration> TakeLatencies();
  // Since the last call; every call begins anew.
  RecentProbes TakeRecent();
  // The latencies behind Counts: upper edges of buckets with their counts, ascending.
  std::vector<std::pair<absl::Duration, uint64_t>> Buckets(bool writes);

  // Runs reads, then writes, one at a time, beside the regular probes; waits for the end.
  // `done(completions)` is called on the calling thread at least every 100 ms; false cancels.
  // FAILED_PRECONDITION when the target cannot be probed or another burst runs; CANCELLED;
  // DEADLINE_EXCEEDED. After an error too, the burst holds what was measured.
  absl::Status RunBurst(ProbeBurst& burst, absl::Duration timeout,
                        const std::function<bool(uint32_t)>& done);

  // Asks the thread to end; does not wait.
  void AskToStop();
  // Asks the thread to end and waits up to `patience`. False: it hangs in its device and is left
  // behind, detached, with its memory; it frees both when the device answers. Later calls answer
  // the same.
  bool Stop(absl::Duration patience);

 private:
  const std::shared_ptr<ProberCore> core_;  // shared with the thread, which may outlive this object
  base::Mutex mutex_;
  base::Thread thread_ ABSL_GUARDED_BY(mutex_);
  bool left_behind_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace metal::disk
