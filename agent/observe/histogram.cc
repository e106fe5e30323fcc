#include "agent/observe/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace metal::observe {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

absl::Duration Nanoseconds(uint64_t value) {
  return absl::Nanoseconds(static_cast<int64_t>(value));
}

void StoreLess(std::atomic<uint64_t>& target, uint64_t value) {
  uint64_t seen = target.load(kRelaxed);
  while (value < seen && !target.compare_exchange_weak(seen, value, kRelaxed)) {
  }
}
void StoreGreater(std::atomic<uint64_t>& target, uint64_t value) {
  uint64_t seen = target.load(kRelaxed);
  while (value > seen && !target.compare_exchange_weak(seen, value, kRelaxed)) {
  }
}

}  // namespace

Histogram::Histogram() : buckets_(kBuckets) {}

// Row 0 holds 0 … 63 ns one by one; row r ≥ 1 holds 2^(r+5) … 2^(r+6)−1 in 64 equal steps.
size_t Histogram::BucketOf(uint64_t nanoseconds) {
  const auto bits = static_cast<int>(std::bit_width(nanoseconds));
  if (bits > kMaxBits) return kBuckets - 1;
  if (bits <= kSubBucketBits) return static_cast<size_t>(nanoseconds);
  const int row = bits - kSubBucketBits;
  const uint64_t step = (nanoseconds >> (row - 1)) & ((uint64_t{1} << kSubBucketBits) - 1);
  return (static_cast<size_t>(row) << kSubBucketBits) + static_cast<size_t>(step);
}

uint64_t Histogram::UpperEdge(size_t bucket) {
  const size_t row = bucket >> kSubBucketBits;
  const uint64_t step = bucket & ((size_t{1} << kSubBucketBits) - 1);
  if (row == 0) return step;
  const uint64_t base = uint64_t{1} << kSubBucketBits;
  return ((base + step + 1) << (row - 1)) - 1;
}

void Histogram::Record(absl::Duration latency) {
  const auto value = static_cast<uint64_t>(std::max<int64_t>(absl::ToInt64Nanoseconds(latency), 0));
  buckets_[BucketOf(value)].fetch_add(1, kRelaxed);
  sum_ns_.fetch_add(value, kRelaxed);
  StoreLess(min_ns_, value);
  StoreGreater(max_ns_, value);
  count_.fetch_add(1, kRelaxed);
}

absl::Duration Histogram::Quantile(double q) const {
  uint64_t total = 0;
  for (const auto& bucket : buckets_) total += bucket.load(kRelaxed);
  if (total == 0) return absl::ZeroDuration();
  const double wanted = std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(total));
  const uint64_t rank = std::clamp<uint64_t>(static_cast<uint64_t>(wanted), 1, total);
  const uint64_t most = max_ns_.load(kRelaxed);
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i].load(kRelaxed);
    // The last bucket has no upper edge: it holds all that is above the range.
    if (seen >= rank) return Nanoseconds(i + 1 == kBuckets ? most : std::min(UpperEdge(i), most));
  }
  return Nanoseconds(most);
}

LatencySummary Histogram::Summary() const {
  LatencySummary summary;
  summary.count = count();
  if (summary.count == 0) return summary;
  summary.min = Nanoseconds(min_ns_.load(kRelaxed));
  summary.max = Nanoseconds(max_ns_.load(kRelaxed));
  summary.mean = Nanoseconds(sum_ns_.load(kRelaxed) / summary.count);
  summary.p50 = Quantile(0.5);
  summary.p90 = Quantile(0.9);
  summary.p99 = Quantile(0.99);
  summary.p999 = Quantile(0.999);
  summary.p9999 = Quantile(0.9999);
  return summary;
}

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) {
    const uint64_t more = other.buckets_[i].load(kRelaxed);
    if (more != 0) buckets_[i].fetch_add(more, kRelaxed);
  }
  sum_ns_.fetch_add(other.sum_ns_.load(kRelaxed), kRelaxed);
  StoreLess(min_ns_, other.min_ns_.load(kRelaxed));
  StoreGreater(max_ns_, other.max_ns_.load(kRelaxed));
  count_.fetch_add(other.count(), kRelaxed);
}

void Histogram::Reset() {
  for (auto& bucket : buckets_) bucket.store(0, kRelaxed);
  sum_ns_.store(0, kRelaxed);
  min_ns_.store(UINT64_MAX, kRelaxed);
  max_ns_.store(0, kRelaxed);
  count_.store(0, kRelaxed);
}

std::vector<std::pair<absl::Duration, uint64_t>> Histogram::Buckets() const {
  std::vector<std::pair<absl::Duration, uint64_t>> filled;
  for (size_t i = 0; i < kBuckets; ++i) {
    const uint64_t in_bucket = buckets_[i].load(kRelaxed);
    if (in_bucket == 0) continue;
    const uint64_t edge =
        i + 1 == kBuckets ? std::max(UpperEdge(i), max_ns_.load(kRelaxed)) : UpperEdge(i);
    filled.emplace_back(Nanoseconds(edge), in_bucket);
  }
  return filled;
}

}  // namespace metal::observe
