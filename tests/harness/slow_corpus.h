// A corpus for the slow-disk detector: hours of probe latencies and throughput of the three drives
// of a shard, second by second, made from a seed; the same on every machine. Some drives become
// slow, others only look as if.
//
// A drive: a base latency (60–160 µs) that grows with its utilisation, lognormal body, heavy tail,
// a drifting mix of requests, garbage collection. Its load: correlated noise, checkpoints every
// five minutes; the other members carry nearly the same. Two probes a second, as the prober makes
// reads. A slow drive also moves less: at most capacity ÷ factor.
//
// Threading: not thread-safe. Streaming: memory does not grow with a case's length.
#pragma once

#include <array>
#include <cstdint>
#include <numbers>
#include <string_view>
#include <vector>

#include "agent/disk/slow/slow_detector.h"

namespace metal::testing {

enum class SlowCaseKind : uint8_t {
  // The first member becomes slow and recovers.
  kPermanent,    // every request, all the time
  kFluctuating,  // every request, by a factor that moves around the case's
  kPartial,      // 30 to 60 % of the requests
  kPeriodic,     // every request, 40 to 60 % of the time, a period of one to four minutes
  // It only looks like it.
  kGarbageCollection,  // bursts of 1 to 8 s, 3 to 20 times slower, 15 to 90 s apart
  kCheckpoint,         // heavy checkpoints every two minutes, with a storm of syncs at the end
  kBackup,             // one member is read at full rate for 20 to 40 minutes
  kThermal,            // spells of 5 to 25 s, 2 to 5 times slower, 2 to 8 minutes apart
  kLoadStep,           // 2 to 6 times the load, for the rest of the case
  kDayNight,           // two days whose load goes up and down by a factor of 6
  kWorkload,           // other requests: 1.6 to 3 times the latency, on all members alike
};
std::string_view SlowCaseKindName(SlowCaseKind kind);  // "permanent", …
bool IsSlowness(SlowCaseKind kind);

struct SlowCase {
  SlowCaseKind kind = SlowCaseKind::kPermanent;
  double factor = 1;       // of slowness
  bool with_peers = true;  // false: the detector is not told of the other members
  uint64_t seed = 1;
};

// Every slowness at factors 2, 4 and 10 and every look-alike, with and without peers (kWorkload
// only with: alone it cannot be told from a slow drive), `repeat` times, each with a seed of its
// own. Corpora of different seeds share no case.
std::vector<SlowCase> MakeSlowCorpus(uint64_t seed, int repeat);

// splitmix64 with the distributions that the corpus needs: the standard library's differ by vendor.
class SlowRandom {
 public:
  explicit SlowRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  double Uniform(double low = 0, double high = 1);
  double Normal();
  double Exponential(double mean);

 private:
  uint64_t state_;
  double spare_ = 0;
  bool has_spare_ = false;
};

// Plays one case.
class SlowCasePlayer {
 public:
  static constexpr int kMembers = 3;
  struct Second {
    std::array<disk::SlowSample, kMembers> members;  // the first is the one that becomes slow
    bool slow = false;                               // the first member is, at least at times
  };

  explicit SlowCasePlayer(const SlowCase& slow_case);
  // False at the end.
  bool Next(Second& second);
  // Seconds from the start: when the slowness or look-alike begins, and ends.
  int begin() const { return begin_; }
  int end() const { return end_; }

 private:
  struct Burst {  // short spells of a drive
    double factor = 1;
    int until = 0, next = 0;
  };
  struct Drive {
    double base_ns = 0, capacity = 0, body_sigma = 0, tail_probability = 0, queueing = 0;
    double load_share = 1;  // of the shard's load
    double mix = 0;         // drifting ln factor of its own
    Burst collection, thermal;
  };

  Drive MakeDrive();
  void StepShard();
  double LoadOf(const Drive& drive, bool first);
  double Spells(Drive& drive, bool first, double utilisation);
  static double Spell(Burst& burst, int now, double factor, double length, double pause);
  double SlownessNow();
  disk::SlowSample SampleOf(Drive& drive, bool first);
  bool During() const { return now_ >= begin_ && now_ < end_; }

  const SlowCase case_;
  SlowRandom random_;
  std::array<Drive, kMembers> drives_;
  int now_ = 0, begin_ = 0, end_ = 0, length_ = 0;
  // The shard's state and the case's traits.
  double base_load_ = 0, noise_ = 0, shared_mix_ = 0;
  double checkpoint_load_ = 0, checkpoint_share_ = 0, sync_factor_ = 1;
  bool syncing_ = false;
  double strength_ = 1;       // of a look-alike: its factor or share
  double partial_share_ = 1;  // of requests that are slow
  int period_ = 0;            // seconds
  double duty_ = 1;           // share of a period
  double level_ = 1;          // of a fluctuating slowness
  int level_until_ = 0;
};

}  // namespace metal::testing
