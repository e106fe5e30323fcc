// LatencyCurve: what latency a drive normally has at a given load, learned from the drive itself.
// Narrow bins of throughput, eight to the octave; each keeps a clipped, forgetting mean and
// variance of ln(latency), and a prediction interpolates between the bins. Throughput is the load,
// not the busy fraction: a drive that becomes slow is busier, so its own slowness would explain
// itself. Bounded memory: kBins bins. Threading: not thread-safe; its owner locks. No I/O, no
// clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "agent/disk/slow/learned_drive.h"

namespace metal::disk {

// Mean and standard deviation that follow slowly and are moved little by outliers.
class RobustMean {
 public:
  // `memory`: how many values the past weighs at most.
  explicit RobustMean(uint32_t memory) : memory_(memory) {}
  void Learn(double value);
  double mean() const { return mean_; }
  // Never below what so few values can tell.
  double deviation() const;
  uint32_t count() const { return count_; }
  LearnedMean Learned() const { return {count_, mean_, variance_}; }
  void Recall(const LearnedMean& learned);

 private:
  uint32_t memory_;
  uint32_t count_ = 0;  // up to memory_
  double mean_ = 0, variance_ = 0;
};

class LatencyCurve {
 public:
  static constexpr size_t kBins = 113;          // below 1 MB/s up to above 16 GB/s
  static constexpr uint32_t kKnownFrom = 120;   // values before a bin counts
  static constexpr uint32_t kBinMemory = 3600;  // values; an hour spent at that load

  struct Prediction {
    double mean = 0;       // of ln(latency in nanoseconds)
    double deviation = 0;  // standard deviation of it
  };

  LatencyCurve();
  void Learn(double bytes_per_second, double log_latency);
  // nullopt: never seen so much load, so nothing can be said. Less load than ever seen, or a gap
  // between known loads: the next higher known one, where latency is no lower.
  std::optional<Prediction> Predict(double bytes_per_second) const;
  // By bin, those that saw anything.
  std::map<size_t, LearnedMean> Learned() const;
  // Instead of what it has learned.
  void Recall(const std::map<size_t, LearnedMean>& learned);

 private:
  static double PositionOf(double bytes_per_second);  // in bins, 0 to kBins − 1
  bool Known(size_t bin) const { return bins_[bin].count() >= kKnownFrom; }
  Prediction At(size_t bin) const { return {bins_[bin].mean(), bins_[bin].deviation()}; }

  std::array<RobustMean, kBins> bins_;
};

}  // namespace metal::disk
