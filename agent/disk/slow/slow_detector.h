// SlowDetector: tells a drive that has become slow from one that has much to do or a short spell.
// Three witnesses judge each second's probe latencies:
//   curve    beyond the prediction bound of the drive's own latency at this throughput, in 65 % of
//            the last minute or 24 % of the last ten (LatencyCurve; abstains at loads that the
//            drive has never had)
//   history  CUSUM of the same excess, against the drive's own mean and spread of hours
//   peers    the excess minus the lower median of what the shard's other members told, who replay
//            the same WAL; judged like the curve
// Slow is what the curve says and the peers confirm, or the history where there are none: what
// every member has is no fault of this drive. One witness alone makes a suspicion.
//
// The last two minutes are not learned yet, a slow drive's seconds never, a suspected one's only
// after ten minutes without confirmation: a slow drive does not become its own normal.
// Not found: a drive that was slow from its first second; slowness only at loads never had before.
//
// No I/O and no clock: time comes with the samples. Bounded memory, about 30 KiB, made once.
// Threading: not thread-safe; its owner locks.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/slow/latency_curve.h"
#include "agent/disk/slow/learned_drive.h"

namespace metal::disk {

// One second of one drive. Of very few probes the median is the lower middle one, and the p99 the
// slowest. A probe that is outstanding counts with its age.
struct SlowSample {
  base::MonotonicTime time;  // one sample each second, ascending
  absl::Duration median, p99;
  double bytes_per_second = 0;  // what the device read and wrote, by /sys/block/X/stat
};

// ln(latency ÷ what the drive's curve expects), smoothed over some twenty seconds: 0 is normal,
// 0.69 twice as slow. What members of a shard tell each other, every few seconds.
struct LatencyExcess {
  double median = 0, p99 = 0;
};

enum class SlowState : uint8_t { kNormal, kSuspected, kSlow };
std::string_view SlowStateName(SlowState state);  // "normal", "suspected", "slow"

// Bits of SlowVerdict::witnesses.
inline constexpr uint8_t kCurveWitness = 1, kHistoryWitness = 2, kPeerWitness = 4;

struct SlowVerdict {
  SlowState state = SlowState::kNormal;
  base::MonotonicTime since;  // of the state; the first sample's time at first
  double factor = 1;  // how many times slower than expected, in the seconds that were; 1 if normal
  // 0 to 1: the mean of the three witnesses' evidence, each counted up to one and a half times its
  // threshold. Without peers never above 0.67.
  double confidence = 0;
  uint8_t witnesses = 0;  // which agree at present
  bool learning = true;   // too little history yet to judge
};

struct SlowLimits {
  // Of the bound above the mean. By Cantelli's inequality values of any distribution are above 1.8
  // in less than 23.6 % of cases: less than long_share, whatever a drive's normal scatter looks
  // like.
  double bound_deviations = 1.8;
  double least_factor = 1.6, most_factor = 4;     // between which that bound is kept
  double minute_share = 0.65, long_share = 0.24;  // of the seconds of 1 and of 10 minutes
  double cusum_slack = 0.7, cusum_threshold = 36, cusum_step = 2;  // in standard deviations
  int clear_after = 120;     // seconds in a row with less than half of every threshold
  int unsuspect_after = 30;  // seconds without any witness
  int learn_from = 1800;     // seconds of history before anything is judged
  int accept_after = 600;    // seconds after which what is suspected and not confirmed is learned
};

// Of the last 60 and of the last 600 seconds: in how many something was so.
class ShareWindow {
 public:
  static constexpr int kMinute = 60, kLong = 600;
  void Push(bool value);
  double minute() const { return static_cast<double>(in_minute_) / kMinute; }
  double ten_minutes() const { return static_cast<double>(in_long_) / kLong; }
  void Clear() { *this = {}; }

 private:
  std::bitset<kLong> seconds_;
  int next_ = 0, in_minute_ = 0, in_long_ = 0;
};

class SlowDetector {
 public:
  explicit SlowDetector(SlowLimits limits = {});

  // `peers`: the latest excess of each other member that is known, none older than some seconds. A
  // sample whose time does not ascend, or without a latency, is ignored. After a gap of more than
  // ten seconds the windows begin anew; the state stays.
  const SlowVerdict& Observe(const SlowSample& sample, std::span<const LatencyExcess> peers = {});
  const SlowVerdict& verdict() const { return verdict_; }
  // For the peers; nullopt when the curve does not know the present load.
  std::optional<LatencyExcess> excess() const { return excess_; }
  LearnedDrive Learned() const;
  // As if it were new.
  void Forget();
  // What was learned of the same drive earlier, unless more of it was learned here since.
  void Recall(const LearnedDrive& learned);

 private:
  // Judges one statistic of the probes: the median (all requests) or the p99 (some requests).
  struct Channel {
    LatencyCurve curve;
    RobustMean history{kHistoryMemory};     // of the excess
    RobustMean difference{kHistoryMemory};  // of the excess and the peers'
    ShareWindow over, over_peers;
    double cusum = 0;
  };
  struct Learnable {  // a second that waits to be learned
    double bytes_per_second = 0;
    std::array<double, 2> log_latency{};
    std::array<std::optional<double>, 2> excess, difference;
  };
  struct Evidence {
    std::array<double, 3> strength{};  // by witness: 1 is the threshold
  };
  static constexpr uint32_t kHistoryMemory = 4 * 3600;
  static constexpr size_t kLearnDelay = 120;  // seconds
  static constexpr size_t kMostPeers = 8;

  void Tell(const Learnable& second);
  void Judge(Channel& channel, double excess, double deviation, std::optional<double> difference);
  double BoundOf(double deviation) const;
  Evidence Weigh(bool with_peers) const;
  double ShareStrength(const ShareWindow& window) const;
  void Decide(const Evidence& evidence, bool with_peers, base::MonotonicTime now);
  void Become(SlowState state, base::MonotonicTime now);
  void Follow(double excess);
  void LearnLater(const Learnable& second);
  void Learn(const Learnable& second);
  void Restart();

  const SlowLimits limits_;
  std::array<Channel, 2> channels_;
  std::array<Learnable, kLearnDelay> waiting_;
  size_t waiting_next_ = 0, waiting_count_ = 0;
  ShareWindow peers_seen_;
  std::optional<base::MonotonicTime> last_;
  std::optional<LatencyExcess> excess_;
  SlowVerdict verdict_;
  double log_factor_ = 0;
  int factor_seconds_ = 0;
  int quiet_ = 0;        // seconds in a row that speak for leaving the state
  int unconfirmed_ = 0;  // seconds in a row that did not make it slow
};

}  // namespace metal::disk
