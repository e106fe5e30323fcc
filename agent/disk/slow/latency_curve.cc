#include "agent/disk/slow/latency_curve.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace metal::disk {
namespace {

constexpr double kLowestLoad = 1e6;  // bytes per second; the first bin's middle
constexpr double kBinsPerOctave = 8;
constexpr double kClip = 2.5;            // standard deviations that one value moves at most
constexpr double kLeastDeviation = 0.1;  // of ln: probes of an idle drive differ by that much
constexpr uint32_t kUnclipped = 10;      // values before there is a deviation to clip by
// Until a bin has seen more, its deviation is pulled towards what drives usually have.
constexpr double kUsualDeviation = 0.4, kUsualWeight = 30;

template <size_t... kIndex>
std::array<RobustMean, sizeof...(kIndex)> MakeBins(uint32_t memory,
                                                   std::index_sequence<kIndex...>) {
  return {((void)kIndex, RobustMean(memory))...};
}

size_t NearestTo(double position) { return static_cast<size_t>(std::lround(position)); }

}  // namespace

void RobustMean::Learn(double value) {
  if (count_ == 0) mean_ = value;
  if (count_ < memory_) ++count_;
  const double limit = kClip * std::max(std::sqrt(variance_), kLeastDeviation);
  double step = value - mean_;
  if (count_ > kUnclipped) step = std::clamp(step, -limit, limit);
  const double weight = 1.0 / count_;
  mean_ += weight * step;
  variance_ = (1 - weight) * (variance_ + weight * step * step);
}

void RobustMean::Recall(const LearnedMean& learned) {
  count_ = std::min(learned.count, memory_);
  mean_ = learned.mean;
  variance_ = learned.variance;
}

double RobustMean::deviation() const {
  const double count = count_;
  const double variance = (count * variance_ + kUsualWeight * kUsualDeviation * kUsualDeviation) /
                          (count + kUsualWeight);
  return std::max(std::sqrt(variance), kLeastDeviation);
}

LatencyCurve::LatencyCurve() : bins_(MakeBins(kBinMemory, std::make_index_sequence<kBins>())) {}

double LatencyCurve::PositionOf(double bytes_per_second) {
  if (!(bytes_per_second > kLowestLoad)) return 0;
  return std::min(kBinsPerOctave * std::log2(bytes_per_second / kLowestLoad),
                  static_cast<double>(kBins - 1));
}

void LatencyCurve::Learn(double bytes_per_second, double log_latency) {
  bins_[NearestTo(PositionOf(bytes_per_second))].Learn(log_latency);
}

std::optional<LatencyCurve::Prediction> LatencyCurve::Predict(double bytes_per_second) const {
  const double position = PositionOf(bytes_per_second);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, kBins - 1);
  if (Known(below) && Known(above)) {
    const double share = position - static_cast<double>(below);
    const Prediction low = At(below), high = At(above);
    return Prediction{low.mean + share * (high.mean - low.mean),
                      low.deviation + share * (high.deviation - low.deviation)};
  }
  const size_t nearest = NearestTo(position);
  if (Known(nearest)) return At(nearest);
  for (size_t bin = above; bin < kBins; ++bin) {
    if (Known(bin)) return At(bin);
  }
  return std::nullopt;
}

std::map<size_t, LearnedMean> LatencyCurve::Learned() const {
  std::map<size_t, LearnedMean> learned;
  for (size_t bin = 0; bin < kBins; ++bin) {
    if (bins_[bin].count() > 0) learned[bin] = bins_[bin].Learned();
  }
  return learned;
}

void LatencyCurve::Recall(const std::map<size_t, LearnedMean>& learned) {
  for (size_t bin = 0; bin < kBins; ++bin) {
    const auto found = learned.find(bin);
    bins_[bin].Recall(found == learned.end() ? LearnedMean() : found->second);
  }
}

}  // namespace metal::disk
