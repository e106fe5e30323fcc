#include "agent/disk/slow/slow_detector.h"

#include <algorithm>
#include <cmath>

namespace metal::disk {
namespace {

constexpr absl::Duration kLongestGap = absl::Seconds(10);
// Of ten minutes, with peers: they count then. Where they are silent for some minutes, it is not
// the moment to judge without them.
constexpr double kPeersShare = 0.1;
constexpr double kConfidentStrength = 1.5;
constexpr double kFactorWeight = 0.05;  // of one second in the factor
constexpr double kToldWeight = 0.05;    // of one second in what peers are told
constexpr double kMostTold = 2;         // of one second: a spell must not stay in it for long

// The lower middle one: of two peers the one that is better off, so that one slow peer hides
// nobody.
double LowerMedian(std::span<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::string_view SlowStateName(SlowState state) {
  switch (state) {
    case SlowState::kNormal:
      return "normal";
    case SlowState::kSuspected:
      return "suspected";
    case SlowState::kSlow:
      break;
  }
  return "slow";
}

void ShareWindow::Push(bool value) {
  const int leaves_minute = (next_ + kLong - kMinute) % kLong;
  in_minute_ += static_cast<int>(value) - static_cast<int>(seconds_[leaves_minute]);
  in_long_ += static_cast<int>(value) - static_cast<int>(seconds_[next_]);
  seconds_[next_] = value;
  next_ = (next_ + 1) % kLong;
}

SlowDetector::SlowDetector(SlowLimits limits) : limits_(limits) {}

const SlowVerdict& SlowDetector::Observe(const SlowSample& sample,
                                         std::span<const LatencyExcess> peers) {
  if (last_ && !(*last_ < sample.time)) return verdict_;
  if (sample.median <= absl::ZeroDuration() || sample.p99 <= absl::ZeroDuration()) return verdict_;
  if (!last_) verdict_.since = sample.time;
  if (last_ && sample.time - *last_ > kLongestGap) Restart();
  last_ = sample.time;

  Learnable second;
  second.bytes_per_second = sample.bytes_per_second;
  second.log_latency = {std::log(absl::ToDoubleNanoseconds(sample.median)),
                        std::log(absl::ToDoubleNanoseconds(sample.p99))};
  peers = peers.first(std::min(peers.size(), kMostPeers));
  peers_seen_.Push(!peers.empty());
  for (size_t i = 0; i < channels_.size(); ++i) {
    Channel& channel = channels_[i];
    const auto expected = channel.curve.Predict(sample.bytes_per_second);
    if (!expected) continue;
    const double excess = second.log_latency[i] - expected->mean;
    second.excess[i] = excess;
    if (!peers.empty()) {
      std::array<double, kMostPeers> others{};
      for (size_t p = 0; p < peers.size(); ++p) others[p] = i == 0 ? peers[p].median : peers[p].p99;
      second.difference[i] = excess - LowerMedian(std::span(others).first(peers.size()));
    }
    Judge(channel, excess, expected->deviation, second.difference[i]);
  }
  Tell(second);
  const bool with_peers = peers_seen_.ten_minutes() > kPeersShare;
  Decide(Weigh(with_peers), with_peers, sample.time);
  LearnLater(second);
  return verdict_;
}

void SlowDetector::Tell(const Learnable& second) {
  if (!second.excess[0] || !second.excess[1]) {
    excess_.reset();
    return;
  }
  const double median = *second.excess[0], p99 = *second.excess[1];
  // All requests, or else some: the factor is of those that are slow.
  const double bound = std::log(limits_.least_factor);
  if (median > bound) {
    Follow(median);
  } else if (p99 > bound) {
    Follow(p99);
  }
  if (!excess_) {
    excess_ = LatencyExcess{std::clamp(median, -kMostTold, kMostTold),
                            std::clamp(p99, -kMostTold, kMostTold)};
  }
  const auto smooth = [](double& value, double now) {
    value += kToldWeight * (std::clamp(now, -kMostTold, kMostTold) - value);
  };
  smooth(excess_->median, median);
  smooth(excess_->p99, p99);
}

double SlowDetector::BoundOf(double deviation) const {
  return std::clamp(limits_.bound_deviations * deviation, std::log(limits_.least_factor),
                    std::log(limits_.most_factor));
}

void SlowDetector::Judge(Channel& channel, double excess, double deviation,
                         std::optional<double> difference) {
  channel.over.Push(excess > BoundOf(deviation));
  // Near its limit of throughput a drive's latency is anything: its own spread there counts.
  const double score =
      (excess - channel.history.mean()) / std::max(channel.history.deviation(), deviation);
  channel.cusum =
      std::clamp(channel.cusum + std::min(score, limits_.cusum_step) - limits_.cusum_slack, 0.0,
                 2 * limits_.cusum_threshold);
  if (!difference) return;
  channel.over_peers.Push(*difference - channel.difference.mean() >
                          BoundOf(std::max(channel.difference.deviation(), deviation)));
}

double SlowDetector::ShareStrength(const ShareWindow& window) const {
  return std::max(window.minute() / limits_.minute_share,
                  window.ten_minutes() / limits_.long_share);
}

SlowDetector::Evidence SlowDetector::Weigh(bool with_peers) const {
  Evidence evidence;
  for (const Channel& channel : channels_) {
    auto& [curve, history, peers] = evidence.strength;
    curve = std::max(curve, ShareStrength(channel.over));
    history = std::max(history, channel.cusum / limits_.cusum_threshold);
    if (with_peers) peers = std::max(peers, ShareStrength(channel.over_peers));
  }
  return evidence;
}

void SlowDetector::Decide(const Evidence& evidence, bool with_peers, base::MonotonicTime now) {
  verdict_.learning = channels_[0].history.count() < static_cast<uint32_t>(limits_.learn_from) ||
                      channels_[1].history.count() < static_cast<uint32_t>(limits_.learn_from);
  if (verdict_.learning) return;
  verdict_.witnesses = 0;
  verdict_.confidence = 0;
  int agreeing = 0;
  double strongest = 0;
  for (size_t i = 0; i < evidence.strength.size(); ++i) {
    const double strength = evidence.strength[i];
    strongest = std::max(strongest, strength);
    verdict_.confidence += std::min(strength / kConfidentStrength, 1.0) / 3;
    if (strength < 1) continue;
    ++agreeing;
    verdict_.witnesses |= static_cast<uint8_t>(1U << i);
  }
  const uint8_t needed = kCurveWitness | (with_peers ? kPeerWitness : kHistoryWitness);
  const bool slow = (verdict_.witnesses & needed) == needed;
  const bool is_slow = verdict_.state == SlowState::kSlow;
  const bool quiet = is_slow ? strongest < 0.5 : agreeing == 0;
  quiet_ = quiet ? quiet_ + 1 : 0;
  unconfirmed_ = slow ? 0 : unconfirmed_ + 1;
  if (slow && !is_slow) {
    Become(SlowState::kSlow, now);
  } else if (is_slow && quiet_ >= limits_.clear_after) {
    Become(SlowState::kNormal, now);
  } else if (verdict_.state == SlowState::kSuspected && quiet_ >= limits_.unsuspect_after) {
    Become(SlowState::kNormal, now);
  } else if (verdict_.state == SlowState::kNormal && agreeing > 0) {
    Become(SlowState::kSuspected, now);
  }
  verdict_.factor = verdict_.state == SlowState::kNormal ? 1 : std::exp(log_factor_);
}

void SlowDetector::Become(SlowState state, base::MonotonicTime now) {
  if (verdict_.state == SlowState::kNormal) factor_seconds_ = 0;
  verdict_.state = state;
  verdict_.since = now;
  quiet_ = 0;
}

void SlowDetector::Follow(double excess) {
  ++factor_seconds_;
  log_factor_ += std::max(kFactorWeight, 1.0 / factor_seconds_) * (excess - log_factor_);
}

void SlowDetector::LearnLater(const Learnable& second) {
  if (waiting_count_ == kLearnDelay) {
    const bool accepted =
        verdict_.state == SlowState::kSuspected && unconfirmed_ >= limits_.accept_after;
    if (verdict_.state == SlowState::kNormal || accepted) Learn(waiting_[waiting_next_]);
  } else {
    ++waiting_count_;
  }
  waiting_[waiting_next_] = second;
  waiting_next_ = (waiting_next_ + 1) % kLearnDelay;
}

void SlowDetector::Learn(const Learnable& second) {
  for (size_t i = 0; i < channels_.size(); ++i) {
    channels_[i].curve.Learn(second.bytes_per_second, second.log_latency[i]);
    if (second.excess[i]) channels_[i].history.Learn(*second.excess[i]);
    if (second.difference[i]) channels_[i].difference.Learn(*second.difference[i]);
  }
}

LearnedDrive SlowDetector::Learned() const {
  LearnedDrive learned;
  for (size_t i = 0; i < channels_.size(); ++i) {
    learned.channels[i] = {.bins = channels_[i].curve.Learned(),
                           .history = channels_[i].history.Learned(),
                           .difference = channels_[i].difference.Learned()};
  }
  return learned;
}

void SlowDetector::Forget() {
  channels_ = {};
  Restart();
  excess_.reset();
  verdict_ = {};
  last_.reset();
  quiet_ = unconfirmed_ = 0;
}

void SlowDetector::Recall(const LearnedDrive& learned) {
  if (channels_[0].history.count() >= learned.channels[0].history.count) return;
  for (size_t i = 0; i < channels_.size(); ++i) {
    channels_[i].curve.Recall(learned.channels[i].bins);
    channels_[i].history.Recall(learned.channels[i].history);
    channels_[i].difference.Recall(learned.channels[i].difference);
  }
  Restart();
}

void SlowDetector::Restart() {
  for (Channel& channel : channels_) {
    channel.over.Clear();
    channel.over_peers.Clear();
    channel.cusum = 0;
  }
  peers_seen_.Clear();
  waiting_count_ = waiting_next_ = 0;
}

}  // namespace metal::disk
