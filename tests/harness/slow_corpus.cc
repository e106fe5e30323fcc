#include "tests/harness/slow_corpus.h"

#include <algorithm>
#include <cmath>

namespace metal::testing {
namespace {

constexpr int kMinute = 60, kHour = 3600;
constexpr int kProbes = 2;  // each second
constexpr int kCheckpointEvery = 5 * kMinute;
constexpr double kFactors[] = {2, 4, 10};

struct KindRow {
  SlowCaseKind kind;
  const char* name;
  bool slowness;
};
constexpr KindRow kKinds[] = {
    {SlowCaseKind::kPermanent, "permanent", true},
    {SlowCaseKind::kFluctuating, "fluctuating", true},
    {SlowCaseKind::kPartial, "partial", true},
    {SlowCaseKind::kPeriodic, "periodic", true},
    {SlowCaseKind::kGarbageCollection, "garbage_collection", false},
    {SlowCaseKind::kCheckpoint, "checkpoint", false},
    {SlowCaseKind::kBackup, "backup", false},
    {SlowCaseKind::kThermal, "thermal", false},
    {SlowCaseKind::kLoadStep, "load_step", false},
    {SlowCaseKind::kDayNight, "day_night", false},
    {SlowCaseKind::kWorkload, "workload", false},
};

// One step of noise with this standard deviation that forgets within `seconds`.
double Drift(double value, double deviation, double seconds, SlowRandom& random) {
  const double keep = std::exp(-1 / seconds);
  return keep * value + deviation * std::sqrt(1 - keep * keep) * random.Normal();
}

}  // namespace

std::string_view SlowCaseKindName(SlowCaseKind kind) {
  return kKinds[static_cast<size_t>(kind)].name;
}
bool IsSlowness(SlowCaseKind kind) { return kKinds[static_cast<size_t>(kind)].slowness; }

std::vector<SlowCase> MakeSlowCorpus(uint64_t seed, int repeat) {
  std::vector<SlowCase> corpus;
  SlowRandom seeds(seed);
  for (int i = 0; i < repeat; ++i) {
    for (const bool with_peers : {true, false}) {
      for (const KindRow& row : kKinds) {
        if (row.kind == SlowCaseKind::kWorkload && !with_peers) continue;
        if (!row.slowness) {
          corpus.push_back({row.kind, 1, with_peers, seeds.Next()});
          continue;
        }
        for (const double factor : kFactors) {
          corpus.push_back({row.kind, factor, with_peers, seeds.Next()});
        }
      }
    }
  }
  return corpus;
}

uint64_t SlowRandom::Next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

double SlowRandom::Uniform(double low, double high) {
  return low + (high - low) * static_cast<double>(Next() >> 11) * 0x1p-53;
}

double SlowRandom::Normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
  const double angle = 2 * std::numbers::pi * Uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

double SlowRandom::Exponential(double mean) { return -mean * std::log(1 - Uniform()); }

SlowCasePlayer::SlowCasePlayer(const SlowCase& slow_case)
    : case_(slow_case), random_(slow_case.seed) {
  for (Drive& drive : drives_) drive = MakeDrive();
  base_load_ = drives_[0].capacity * random_.Uniform(0.05, 0.3);
  checkpoint_share_ = random_.Uniform(0.1, 0.25);
  sync_factor_ = random_.Uniform(1.5, 4);
  partial_share_ = case_.kind == SlowCaseKind::kPartial ? random_.Uniform(0.3, 0.6) : 1;
  period_ = static_cast<int>(random_.Uniform(kMinute, 4 * kMinute));
  duty_ = random_.Uniform(0.4, 0.6);
  begin_ = 2 * kHour + static_cast<int>(random_.Uniform(0, 10 * kMinute));
  end_ = begin_ + 20 * kMinute;
  length_ = end_ + 20 * kMinute;
  if (IsSlowness(case_.kind)) return;
  end_ = begin_ + kHour;
  length_ = end_ + 10 * kMinute;
  if (case_.kind == SlowCaseKind::kBackup) {
    end_ = begin_ + static_cast<int>(random_.Uniform(20 * kMinute, 40 * kMinute));
    strength_ = random_.Uniform(0.85, 0.95);  // utilisation
  } else if (case_.kind == SlowCaseKind::kLoadStep) {
    strength_ = random_.Uniform(2, 6);
    end_ = length_;
  } else if (case_.kind == SlowCaseKind::kWorkload) {
    strength_ = random_.Uniform(1.6, 3);
  } else if (case_.kind == SlowCaseKind::kDayNight) {
    begin_ = 0;
    end_ = length_ = 48 * kHour;
  }
}

SlowCasePlayer::Drive SlowCasePlayer::MakeDrive() {
  Drive drive;
  drive.base_ns = random_.Uniform(60e3, 160e3);
  drive.capacity = random_.Uniform(1e9, 3e9);
  drive.body_sigma = random_.Uniform(0.15, 0.35);
  drive.tail_probability = random_.Uniform(0.002, 0.02);
  drive.queueing = random_.Uniform(0.5, 1);
  drive.load_share = random_.Uniform(0.85, 1.05);
  return drive;
}

// What all members have in common in this second.
void SlowCasePlayer::StepShard() {
  noise_ = Drift(noise_, 0.3, kMinute, random_);
  shared_mix_ = Drift(shared_mix_, 0.1, 5 * kMinute, random_);
  const bool heavy = case_.kind == SlowCaseKind::kCheckpoint && During();
  const int every = heavy ? kCheckpointEvery * 2 / 5 : kCheckpointEvery;
  const int phase = now_ % every;
  const int writing = every * 7 / 10, sync = heavy ? 10 : 4;
  syncing_ = phase >= writing && phase < writing + sync;
  checkpoint_load_ = phase < writing ? (heavy ? 2.5 : 1) * checkpoint_share_ : 0;
}

double SlowCasePlayer::LoadOf(const Drive& drive, bool first) {
  double load = base_load_ * std::exp(noise_);
  if (case_.kind == SlowCaseKind::kLoadStep && During()) load *= strength_;
  if (case_.kind == SlowCaseKind::kDayNight) {
    load *= std::exp(0.9 * std::sin(2 * std::numbers::pi * now_ / (24.0 * kHour)));
  }
  load = load * drive.load_share + checkpoint_load_ * drive.capacity;
  load *= std::exp(0.05 * random_.Normal());
  if (case_.kind == SlowCaseKind::kBackup && During() && first) {
    load = std::max(load, drive.capacity * (strength_ + 0.02 * random_.Normal()));
  }
  return std::min(load, 0.97 * drive.capacity);
}

double SlowCasePlayer::Spell(Burst& burst, int now, double factor, double length, double pause) {
  if (now >= burst.next) {
    burst.until = burst.next == 0 ? 0 : now + std::max(1, static_cast<int>(length));
    burst.factor = factor;
    burst.next = std::max(now, burst.until) + std::max(1, static_cast<int>(pause));
  }
  return now < burst.until ? burst.factor : 1;
}

// Garbage collection and heat: how many times slower for now.
double SlowCasePlayer::Spells(Drive& drive, bool first, double utilisation) {
  double factor = 1;
  if (first && During() && case_.kind == SlowCaseKind::kGarbageCollection) {
    // More of it than usual, beginning within the usual pause.
    drive.collection.next = std::min(drive.collection.next, now_ + 90);
    factor *= Spell(drive.collection, now_, random_.Uniform(3, 20), random_.Uniform(1, 8.99),
                    random_.Uniform(15, 90));
  } else {
    factor *= Spell(drive.collection, now_, random_.Uniform(1.5, 6), random_.Uniform(1, 4),
                    random_.Exponential(120 / (0.3 + utilisation)));
  }
  if (first && During() && case_.kind == SlowCaseKind::kThermal) {
    factor *= Spell(drive.thermal, now_, random_.Uniform(2, 5), random_.Uniform(5, 25.99),
                    random_.Uniform(2 * kMinute, 8 * kMinute));
  }
  return factor;
}

// Of the first member's slow requests in this second.
double SlowCasePlayer::SlownessNow() {
  if (!IsSlowness(case_.kind) || !During()) return 1;
  if (case_.kind == SlowCaseKind::kPeriodic && (now_ - begin_) % period_ >= duty_ * period_) {
    return 1;
  }
  if (case_.kind != SlowCaseKind::kFluctuating) return case_.factor;
  if (now_ >= level_until_) {
    level_ = std::pow(case_.factor, random_.Uniform(0.5, 1.5));
    level_until_ = now_ + static_cast<int>(random_.Uniform(5, 30));
  }
  return level_;
}

disk::SlowSample SlowCasePlayer::SampleOf(Drive& drive, bool first) {
  const double slowness = first ? SlownessNow() : 1;
  double load = LoadOf(drive, first);
  const double utilisation = load / drive.capacity;
  drive.mix = Drift(drive.mix, 0.06, 5 * kMinute, random_);
  double usual = drive.base_ns / std::pow(1 - utilisation, drive.queueing);
  usual *= std::exp(drive.mix + shared_mix_) * Spells(drive, first, utilisation);
  if (syncing_) usual *= sync_factor_;
  if (case_.kind == SlowCaseKind::kWorkload && During()) usual *= strength_;
  std::array<double, kProbes> probes{};
  for (double& probe : probes) {
    probe = usual * std::exp(drive.body_sigma * random_.Normal());
    if (random_.Uniform() < partial_share_) probe *= slowness;
    // Pareto: most are a few times as slow, some a hundred times.
    if (random_.Uniform() < drive.tail_probability) {
      probe *= std::min(3 / std::pow(1 - random_.Uniform(), 1 / 1.5), 300.0);
    }
  }
  std::sort(probes.begin(), probes.end());
  load = std::min(load, 0.95 * drive.capacity / (1 + partial_share_ * (slowness - 1)));
  return {.time = {absl::Seconds(now_)},
          .median = absl::Nanoseconds(probes[(kProbes - 1) / 2]),
          .p99 = absl::Nanoseconds(probes[kProbes - 1]),
          .bytes_per_second = load};
}

bool SlowCasePlayer::Next(Second& second) {
  if (now_ >= length_) return false;
  StepShard();
  for (int i = 0; i < kMembers; ++i) second.members[i] = SampleOf(drives_[i], i == 0);
  second.slow = IsSlowness(case_.kind) && During();
  ++now_;
  return true;
}

}  // namespace metal::testing
