// Log-linear latency histogram: 64 sub-buckets for each power of two of nanoseconds (a bucket is at
// most 1.6 % wide), up to 2^40 ns (18 min). Threading: one writer calls Record; any thread may read
// a Snapshot at the same time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace metal::observe {

struct LatencySummary {
  uint64_t count = 0;
  absl::Duration min, mean, p50, p90, p99, p999, p9999, max;
};

class Histogram {
 public:
  Histogram();
  // Values above the range count in the last bucket; `max` stays exact. Wait-free.
  void Record(absl::Duration latency);
  // A consistent-enough view (each counter is atomic, the set is not). All zero when empty.
  LatencySummary Summary() const;
  // Value at quantile q in [0, 1]; the upper edge of its bucket, never above max.
  absl::Duration Quantile(double q) const;
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }
  // Adds the other's counts (for merging per-thread or per-window histograms).
  void Merge(const Histogram& other);
  void Reset();

  static constexpr int kSubBucketBits = 6;
  static constexpr int kMaxBits = 40;
  static constexpr size_t kBuckets = (kMaxBits - kSubBucketBits + 1) << kSubBucketBits;
  // Non-empty buckets as (upper edge, count), ascending: for export.
  std::vector<std::pair<absl::Duration, uint64_t>> Buckets() const;

 private:
  static size_t BucketOf(uint64_t nanoseconds);
  static uint64_t UpperEdge(size_t bucket);
  std::vector<std::atomic<uint64_t>> buckets_;
  std::atomic<uint64_t> count_{0}, sum_ns_{0}, min_ns_{UINT64_MAX}, max_ns_{0};
};

}  // namespace metal::observe
