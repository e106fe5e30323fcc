// ProberCore: what a prober's thread and its owner share; the thread may outlive the owner when it
// hangs in its device.
// Threading: Run is the thread's body and does all I/O; it never holds the mutex while it calls
// the device. Every other method is thread-safe and holds the mutex for microseconds.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/disk/latency_window.h"
#include "agent/disk/probe_device.h"
#include "agent/disk/prober.h"

namespace metal::disk {

// One burst between its caller and the prober's thread. Guarded by the core's mutex.
struct BurstState {
  ProbeBurst burst;
  observe::Histogram read, write;
  uint32_t started = 0;
  bool outstanding = false;
  bool finished = false;
  absl::Status status;  // set when finished
};

class ProberCore {
 public:
  ProberCore(ProberOptions options, std::unique_ptr<ProbeDevice> device, base::Clock& clock);

  void Run();

  ProbeObservation Observe();
  std::string reason();
  ProbeCounts Counts();
  std::vector<absl::Duration> TakeLatencies();
  RecentProbes TakeRecent();
  std::vector<std::pair<absl::Duration, uint64_t>> Buckets(bool writes);

  absl::Status StartBurst(const std::shared_ptr<BurstState>& burst);
  // Waits up to `timeout` for the end; copies what there is so far; true when it is finished.
  bool WaitBurst(const std::shared_ptr<BurstState>& burst, absl::Duration timeout,
                 ProbeBurst& copy);
  // No further probes for it. What is outstanding is still counted when it returns.
  void EndBurst(const std::shared_ptr<BurstState>& burst);

  void RequestStop();
  bool WaitFinished(absl::Duration timeout);
  base::Clock& clock() { return clock_; }

 private:
  struct Slot {
    bool used = false;
    bool is_write = false;
    uint32_t block = 0;
    uint64_t sequence = 0;  // written; or, of a read, what must be found at least; 0: unknown
    base::MonotonicTime since;
    std::shared_ptr<BurstState> burst;
  };

  // The thread's own steps.
  bool OpenDevice();
  void Probe();
  void WaitForReopen();
  void IssueDue(base::MonotonicTime now);
  // One of the outstanding transfers does not come back.
  bool Waits(base::MonotonicTime now) const;
  void IssueBurst(base::MonotonicTime now);
  std::optional<uint32_t> FreeSlot() const;
  bool IsOutstanding(uint32_t block) const;
  // A read is of the block that is wanted, or of any.
  void Start(bool is_write, base::MonotonicTime now, const std::shared_ptr<BurstState>& burst,
             std::optional<uint32_t> wanted = std::nullopt);
  void Finish(const ProbeCompletion& completion);
  absl::Duration UntilNext(base::MonotonicTime now) const;
  bool stopping();
  bool IsZero(const ProbeCompletion& completion);  // what a read brought
  bool WasCut();
  void MarkStep();
  void ClearStep();
  void Leave(ProbePhase phase, std::string reason);

  void Count(const Slot& slot, const ProbeOutcome& outcome, absl::Duration latency,
             base::MonotonicTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountBurst(BurstState& state, const Slot& slot, const ProbeOutcome& outcome,
                  absl::Duration latency) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishBurst(BurstState& state, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ProberOptions options_;
  const std::unique_ptr<ProbeDevice> device_;
  base::Clock& clock_;

  // The thread's own.
  base::MonotonicTime next_read_, next_write_;
  std::minstd_rand random_;
  uint32_t write_cursor_ = 0;
  uint64_t sequence_ = 0;
  std::vector<uint64_t>
      written_;  // by block: the last sequence that the device confirmed; 0: unknown
  uint32_t outstanding_ = 0;
  uint64_t errors_in_a_row_ = 0;
  bool leaving_ = false;  // issue nothing more, close when all is back
  bool cut_ = false;      // leaving because another program cut the file
  base::MonotonicTime opened_;
  bool write_waits_ = false;  // a write is due, and a read under way has to come back before it
  bool read_back_ = false;    // since the write is due
  bool read_ahead_ = false;   // the last read was of what the next write replaces

  base::Mutex mutex_;
  base::CondVar changed_;
  // Written by the thread alone; read by it without, by others with the mutex.
  std::array<Slot, kProbeSlots> slots_;
  std::optional<base::MonotonicTime> step_since_ ABSL_GUARDED_BY(mutex_);
  ProbeObservation seen_ ABSL_GUARDED_BY(mutex_);
  std::string reason_ ABSL_GUARDED_BY(mutex_);
  LatencyWindow read_ ABSL_GUARDED_BY(mutex_);
  LatencyWindow write_ ABSL_GUARDED_BY(mutex_);
  observe::Histogram recent_read_ ABSL_GUARDED_BY(mutex_);
  observe::Histogram recent_write_ ABSL_GUARDED_BY(mutex_);
  ProbeCounts counts_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Duration> latencies_ ABSL_GUARDED_BY(mutex_);  // since TakeLatencies
  std::shared_ptr<BurstState> burst_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace metal::disk
