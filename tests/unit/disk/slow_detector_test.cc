#include "agent/disk/slow/slow_detector.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/disk/slow_replay.h"

namespace metal::disk {
namespace {

using testing::SlowCase;
using testing::SlowCaseKind;
using testing::SlowCasePlayer;
using testing::SlowReplay;

// Neither the seeds that the limits were chosen on nor those of the benchmark.
constexpr uint64_t kSeed = 31;

// A steady drive: 100 µs at 200 MB/s, probes scattered by about a fifth.
class Drive {
 public:
  const SlowVerdict& Second(double factor = 1, double p99_factor = 0,
                            std::vector<LatencyExcess> peers = {}) {
    now_ += absl::Seconds(1);
    const double median = 100e3 * factor * std::exp(0.2 * random_.Normal());
    const double p99 =
        130e3 * (p99_factor > 0 ? p99_factor : factor) * std::exp(0.2 * random_.Normal());
    return detector_.Observe({.time = {now_},
                              .median = absl::Nanoseconds(median),
                              .p99 = absl::Nanoseconds(std::max(median, p99)),
                              .bytes_per_second = load_},
                             peers);
  }
  const SlowVerdict& Seconds(int count, double factor = 1, double p99_factor = 0,
                             const std::vector<LatencyExcess>& peers = {}) {
    for (int i = 0; i < count; ++i) Second(factor, p99_factor, peers);
    return verdict();
  }
  // Seconds until it is slow; -1: not within `limit`.
  int UntilSlow(int limit, double factor, double p99_factor = 0,
                const std::vector<LatencyExcess>& peers = {}) {
    for (int i = 1; i <= limit; ++i) {
      if (Second(factor, p99_factor, peers).state == SlowState::kSlow) return i;
    }
    return -1;
  }
  const SlowVerdict& verdict() const { return detector_.verdict(); }
  SlowDetector& detector() { return detector_; }
  absl::Duration now() const { return now_; }
  void Pass(absl::Duration time) { now_ += time; }
  void SetLoad(double bytes_per_second) { load_ = bytes_per_second; }

 private:
  testing::SlowRandom random_{kSeed};
  SlowDetector detector_;
  absl::Duration now_ = absl::Hours(5);
  double load_ = 200e6;
};

const std::vector<LatencyExcess> kHealthyPeers(2);

TEST(SlowDetectorTest, LearnsBeforeItJudges) {
  Drive drive;
  EXPECT_TRUE(drive.Seconds(1000).learning);
  drive.Seconds(600, 10);
  EXPECT_EQ(drive.verdict().state, SlowState::kNormal);
  Drive other;
  EXPECT_FALSE(other.Seconds(3000).learning);
  EXPECT_EQ(other.verdict().state, SlowState::kNormal);
}

TEST(SlowDetectorTest, FourTimesSlowerIsSlowWithinAMinuteAndSaysByHowMuch) {
  Drive drive;
  drive.Seconds(3600);
  const int after = drive.UntilSlow(60, 4);
  EXPECT_GT(after, 20);
  EXPECT_EQ(drive.verdict().since.since_start, drive.now());
  EXPECT_EQ(drive.verdict().witnesses, kCurveWitness | kHistoryWitness);
  EXPECT_NEAR(drive.verdict().confidence, 0.5, 0.17);
  drive.Seconds(60, 4);
  EXPECT_NEAR(drive.verdict().factor, 4, 0.4);
}

TEST(SlowDetectorTest, SlowTailAloneIsFound) {
  Drive drive;
  drive.Seconds(3600);
  EXPECT_GT(drive.UntilSlow(60, 1, 8), 0);
  drive.Seconds(60, 1, 8);
  EXPECT_NEAR(drive.verdict().factor, 8, 0.8);
}

TEST(SlowDetectorTest, AShortSpellIsNoAlarmHoweverBad) {
  Drive drive;
  drive.Seconds(3600);
  for (int i = 0; i < 10; ++i) {
    drive.Seconds(20, 50);
    EXPECT_NE(drive.verdict().state, SlowState::kSlow);
    drive.Seconds(180);
    EXPECT_EQ(drive.verdict().state, SlowState::kNormal);
  }
}

TEST(SlowDetectorTest, LoadThatExplainsTheLatencyIsNoAlarm) {
  Drive drive;
  for (int i = 0; i < 4; ++i) {
    drive.SetLoad(200e6);
    drive.Seconds(900);
    drive.SetLoad(1500e6);  // never had before: it is learned, later known
    drive.Seconds(900, 4);
    EXPECT_EQ(drive.verdict().state, SlowState::kNormal);
  }
  // The same latency without the load is slow.
  drive.SetLoad(200e6);
  drive.Seconds(600);
  EXPECT_GT(drive.UntilSlow(60, 4), 0);
}

TEST(SlowDetectorTest, WhatAllMembersHaveIsOnlySuspected) {
  Drive drive;
  drive.Seconds(3600, 1, 0, kHealthyPeers);
  const std::vector<LatencyExcess> slow_peers(2, {std::log(4), std::log(4)});
  EXPECT_EQ(drive.UntilSlow(900, 4, 0, slow_peers), -1);
  EXPECT_EQ(drive.verdict().state, SlowState::kSuspected);
}

TEST(SlowDetectorTest, OneOtherSlowMemberHidesNobody) {
  Drive drive;
  drive.Seconds(3600, 1, 0, kHealthyPeers);
  const std::vector<LatencyExcess> one_slow = {{}, {std::log(4), std::log(4)}};
  EXPECT_GT(drive.UntilSlow(60, 4, 0, one_slow), 0);
  EXPECT_EQ(drive.verdict().witnesses, kCurveWitness | kHistoryWitness | kPeerWitness);
  drive.Seconds(30, 4, 0, one_slow);
  EXPECT_GT(drive.verdict().confidence, 0.9);
}

TEST(SlowDetectorTest, TellsItsPeersTheExcess) {
  Drive drive;
  EXPECT_FALSE(drive.detector().excess());
  drive.Seconds(3600);
  ASSERT_TRUE(drive.detector().excess());
  EXPECT_NEAR(drive.detector().excess()->median, 0, 0.2);
  drive.Seconds(100, 4);
  EXPECT_NEAR(drive.detector().excess()->median, std::log(4), 0.2);
  drive.SetLoad(1e10);
  drive.Second();
  EXPECT_FALSE(drive.detector().excess());
}

TEST(SlowDetectorTest, ClearsWithHysteresisAndFindsItAgain) {
  Drive drive;
  drive.Seconds(3600);
  ASSERT_GT(drive.UntilSlow(60, 4), 0);
  drive.Seconds(600, 4);
  EXPECT_EQ(drive.Seconds(120).state, SlowState::kSlow);  // not at the first good minutes
  EXPECT_EQ(drive.Seconds(700).state, SlowState::kNormal);
  EXPECT_EQ(drive.verdict().factor, 1);
  EXPECT_GT(drive.UntilSlow(60, 4), 0);
}

TEST(SlowDetectorTest, ASlowDriveDoesNotBecomeItsOwnNormal) {
  Drive drive;
  drive.Seconds(3600);
  ASSERT_GT(drive.UntilSlow(60, 3), 0);
  drive.Seconds(8 * 3600, 3);
  EXPECT_EQ(drive.verdict().state, SlowState::kSlow);
  EXPECT_NEAR(drive.verdict().factor, 3, 0.4);
}

TEST(SlowDetectorTest, IgnoresSamplesWithoutNews) {
  Drive drive;
  drive.Seconds(3600);
  SlowDetector& detector = drive.detector();
  for (int i = 0; i < 200; ++i) {
    detector.Observe({.time = {drive.now()}, .median = absl::Seconds(1), .p99 = absl::Seconds(1)});
    SlowSample without_latency;
    without_latency.time = {drive.now() + absl::Seconds(1)};
    detector.Observe(without_latency);
  }
  EXPECT_EQ(drive.Second().state, SlowState::kNormal);
}

TEST(SlowDetectorTest, AGapStartsTheWindowsAnewAndKeepsTheState) {
  Drive drive;
  drive.Seconds(3600);
  drive.Seconds(30, 4);
  drive.Pass(absl::Minutes(5));
  EXPECT_GT(drive.UntilSlow(60, 4), 20);
  drive.Pass(absl::Minutes(5));
  EXPECT_EQ(drive.Second().state, SlowState::kSlow);
}

TEST(SlowDetectorTest, StatesHaveNames) {
  EXPECT_EQ(SlowStateName(SlowState::kNormal), "normal");
  EXPECT_EQ(SlowStateName(SlowState::kSuspected), "suspected");
  EXPECT_EQ(SlowStateName(SlowState::kSlow), "slow");
}

TEST(SlowCorpusTest, IsTheSameAgainAndAnotherWithAnotherSeed) {
  const auto corpus = testing::MakeSlowCorpus(kSeed, 1), other = testing::MakeSlowCorpus(32, 1);
  ASSERT_EQ(corpus.size(), 37U);
  for (const SlowCase& one : corpus) {
    for (const SlowCase& two : other) EXPECT_NE(one.seed, two.seed);
  }
  SlowCasePlayer first(corpus[0]), again(corpus[0]), another(other[0]);
  SlowCasePlayer::Second a, b, c;
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(first.Next(a) && again.Next(b) && another.Next(c));
    EXPECT_EQ(a.members[1].p99, b.members[1].p99);
    different += a.members[1].p99 != c.members[1].p99;
  }
  EXPECT_GT(different, 90);
}

TEST(SlowCorpusTest, EveryKindAtFourTimesIsFoundAndNoLookAlikeAlarms) {
  int found = 0, slow = 0;
  for (const SlowCase& each : testing::MakeSlowCorpus(kSeed, 1)) {
    if (each.kind == SlowCaseKind::kDayNight) continue;  // two days; the benchmark plays them
    if (testing::IsSlowness(each.kind) && each.factor != 4) continue;
    const SlowReplay replay = testing::ReplaySlowCase(each);
    EXPECT_EQ(replay.false_alarms, 0) << testing::SlowCaseKindName(each.kind) << " " << each.seed;
    if (!testing::IsSlowness(each.kind)) continue;
    ++slow;
    found += replay.alert_after.has_value() && *replay.alert_after < 300;
    EXPECT_TRUE(replay.clear_after) << testing::SlowCaseKindName(each.kind) << " " << each.seed;
  }
  EXPECT_EQ(slow, 8);
  EXPECT_EQ(found, slow);
}

}  // namespace
}  // namespace metal::disk
