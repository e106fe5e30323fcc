// LatencyWindow: latencies of the last one to two windows of time, in two histograms that take
// turns.
// Threading: not thread-safe; its owner locks.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/observe/histogram.h"

namespace metal::disk {

class LatencyWindow {
 public:
  explicit LatencyWindow(absl::Duration window) : window_(window) {}

  void Record(absl::Duration latency, base::MonotonicTime now) {
    Rotate(now);
    present_.Record(latency);
  }

  observe::LatencySummary Summary(base::MonotonicTime now) {
    Rotate(now);
    if (previous_.count() == 0) return present_.Summary();
    observe::Histogram both;
    MergeInto(both);
    return both.Summary();
  }

  // Upper edges of buckets with their counts, ascending.
  std::vector<std::pair<absl::Duration, uint64_t>> Buckets(base::MonotonicTime now) {
    Rotate(now);
    observe::Histogram both;
    MergeInto(both);
    return both.Buckets();
  }

 private:
  void MergeInto(observe::Histogram& both) const {
    both.Merge(previous_);
    both.Merge(present_);
  }

  void Rotate(base::MonotonicTime now) {
    if (!start_) start_ = now;
    if (now - *start_ < window_) return;
    previous_.Reset();
    // After a gap of two windows nothing that was recorded is recent.
    if (now - *start_ < 2 * window_) previous_.Merge(present_);
    present_.Reset();
    start_ = now;
  }

  const absl::Duration window_;
  std::optional<base::MonotonicTime> start_;
  observe::Histogram present_, previous_;
};

}  // namespace metal::disk
