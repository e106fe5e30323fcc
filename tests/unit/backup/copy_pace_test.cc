#include "agent/backup/copy_pace.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"

namespace metal::backup {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr absl::Duration kMost = absl::Milliseconds(5);

// A disk that is the slower the busier it is, its users, and a copy that takes what it may have.
class CopyPaceTest : public ::testing::Test {
 protected:
  static constexpr double kCapacity = 1000.0 * kMiB;

  void Make(CopyPaceOptions options) { pace_.emplace(options, clock_, events_); }

  absl::Duration Latency(double load) const {
    const double idle = std::max(1.0 - load / kCapacity, 0.01);
    return absl::Milliseconds(1) / idle;
  }
  // One second, in which the server moves so much, and copies what is left or what they may.
  void Second(double server, bool copies = true, uint64_t segments_waiting = 0) {
    const double may = pace_->rate() == 0 ? std::numeric_limits<double>::infinity()
                                          : static_cast<double>(pace_->rate());
    copied_ = copies ? std::min(kCapacity - server, may) : 0;
    if (copies) pace_->throttle().Book(static_cast<uint64_t>(copied_));
    latency_ = Latency(server + copied_);
    clock_.Advance(absl::Seconds(1));
    pace_->Observe(std::vector<absl::Duration>(3, latency_));
    pace_->Adjust(segments_waiting);
  }
  std::vector<std::string> Told() {
    std::vector<std::string> types;
    for (const observe::Event& each : events_.events()) types.push_back(each.type);
    return types;
  }

  testing::SimulatedClock clock_;
  testing::RecordedEvents events_;
  std::optional<CopyPace> pace_;
  double copied_ = 0;
  absl::Duration latency_;
};

TEST_F(CopyPaceTest, WithoutABoundNobodyIsHeldBack) {
  Make({});
  for (int i = 0; i < 60; ++i) Second(0.5 * kCapacity, true, static_cast<uint64_t>(i));
  EXPECT_EQ(pace_->rate(), 0u);
  EXPECT_TRUE(Told().empty());
}

TEST_F(CopyPaceTest, CopiesLeaveTheServerAsMuchAsTheBoundAsks) {
  Make({.latency_max = kMost});
  for (int i = 0; i < 60; ++i) Second(0.3 * kCapacity);
  EXPECT_LE(latency_, kMost);
  // 5 ms are reached at 80 % of the capacity, of which the server has 30.
  EXPECT_GE(copied_, 0.25 * kCapacity);
  EXPECT_THAT(Told(), ::testing::ElementsAre("backup.slowed"));
  EXPECT_THAT(events_.events().front().message, HasSubstr("backup.latency_max is 5ms"));
  // The server has more to do, then less.
  for (int i = 0; i < 60; ++i) Second(0.7 * kCapacity);
  EXPECT_LE(latency_, kMost);
  for (int i = 0; i < 60; ++i) Second(0.1 * kCapacity);
  EXPECT_LE(latency_, kMost);
  EXPECT_GE(copied_, 0.45 * kCapacity);
}

TEST_F(CopyPaceTest, AFastDiskIsUsedAsIfThereWereNoBound) {
  Make({.latency_max = absl::Milliseconds(200)});
  for (int i = 0; i < 60; ++i) Second(0.3 * kCapacity);
  EXPECT_EQ(pace_->rate(), 0u);
}

TEST_F(CopyPaceTest, ACopyEndsHoweverBusyTheDiskIs) {
  Make({.latency_max = kMost});
  for (int i = 0; i < 120; ++i) Second(0.99 * kCapacity);
  EXPECT_EQ(pace_->rate(), 8 * kMiB);
}

TEST_F(CopyPaceTest, TheNextCopyBeginsWithoutALimit) {
  Make({.latency_max = kMost});
  for (int i = 0; i < 60; ++i) Second(0.3 * kCapacity);
  EXPECT_NE(pace_->rate(), 0u);
  for (int i = 0; i < 3; ++i) Second(0.9 * kCapacity, false);
  EXPECT_NE(pace_->rate(), 0u) << "a copy that waits is one still";
  for (int i = 0; i < 3; ++i) Second(0.9 * kCapacity, false);
  EXPECT_EQ(pace_->rate(), 0u);
  EXPECT_THAT(Told(), ::testing::ElementsAre("backup.slowed", "backup.let_go"));
}

TEST_F(CopyPaceTest, ACopyThatNeedsLessThanItMayHaveIsLetGo) {
  Make({.latency_max = kMost});
  for (int i = 0; i < 30; ++i) Second(0.3 * kCapacity);
  ASSERT_NE(pace_->rate(), 0u);
  for (int i = 0; i < 30; ++i) {  // held up elsewhere, say by the network
    pace_->throttle().Book(10 * kMiB);
    clock_.Advance(absl::Seconds(1));
    pace_->Observe(std::vector<absl::Duration>(3, absl::Milliseconds(1)));
    pace_->Adjust(0);
  }
  EXPECT_EQ(pace_->rate(), 0u);
}

TEST_F(CopyPaceTest, ArchivingGoesFirst) {
  Make({.latency_max = kMost});
  for (uint64_t i = 0; i < 10; ++i) Second(0, true, 4);
  const uint64_t before = pace_->rate();
  for (uint64_t i = 0; i < 10; ++i) Second(0, true, 10 + i);
  EXPECT_LT(pace_->rate(), before / 4);
}

TEST_F(CopyPaceTest, AHotDriveIsSparedStepByStepAndNothingElseIsLookedAt) {
  Make({});
  const auto second = [&](bool hot) {
    pace_->throttle().Book(pace_->rate() == 0 ? 100 * kMiB : pace_->rate());
    clock_.Advance(absl::Seconds(1));
    pace_->Observe(std::vector<absl::Duration>(3, absl::Seconds(1)));
    pace_->Adjust(1000, hot);
  };
  second(false);
  EXPECT_EQ(pace_->rate(), 0u);
  second(true);
  EXPECT_EQ(pace_->rate(), 70 * kMiB);
  for (int i = 0; i < 29; ++i) second(true);
  EXPECT_EQ(pace_->rate(), 70 * kMiB) << "it takes a while to cool";
  second(true);
  EXPECT_EQ(pace_->rate(), 49 * kMiB);
  for (int i = 0; i < 600; ++i) second(true);
  EXPECT_EQ(pace_->rate(), 8 * kMiB) << "a backup has to end";
  second(false);
  EXPECT_GT(pace_->rate(), 8 * kMiB);
  for (int i = 0; i < 10; ++i) {  // nobody copies
    clock_.Advance(absl::Seconds(1));
    pace_->Adjust(0, false);
  }
  EXPECT_EQ(pace_->rate(), 0u);
  EXPECT_THAT(Told(), ::testing::ElementsAre("backup.slowed", "backup.let_go"));
}

TEST_F(CopyPaceTest, TheConfiguredLimitIsTheCeiling) {
  Make({.rate_limit = 100 * kMiB, .latency_max = kMost});
  for (int i = 0; i < 60; ++i) Second(0.3 * kCapacity);
  EXPECT_EQ(pace_->rate(), 100 * kMiB);
  for (int i = 0; i < 60; ++i) Second(0.75 * kCapacity);
  EXPECT_LT(pace_->rate(), 60 * kMiB);
  for (int i = 0; i < 60; ++i) Second(0.3 * kCapacity);
  EXPECT_EQ(pace_->rate(), 100 * kMiB);
}

// Whoever measures and whoever decides do not wait for each other.
TEST_F(CopyPaceTest, WhatWasMeasuredBeforeAChangeDecidesNoOther) {
  Make({.latency_max = kMost});
  const std::vector<absl::Duration> late(8, absl::Milliseconds(20));
  const auto second = [&] {
    pace_->throttle().Book(100 * kMiB);
    clock_.Advance(absl::Seconds(1));
    pace_->Adjust(0);
  };
  pace_->Observe(late);
  second();
  const uint64_t slowed = pace_->rate();
  EXPECT_EQ(slowed, 70 * kMiB);
  pace_->Observe(late);  // of the second before
  second();
  EXPECT_EQ(pace_->rate(), slowed);
  pace_->Observe(late);
  second();
  EXPECT_LT(pace_->rate(), slowed);
}

TEST_F(CopyPaceTest, ALullIsNoMeasureOfWhatACopyReads) {
  Make({.latency_max = kMost});
  for (int i = 0; i < 4; ++i) {  // it waits for a checkpoint
    clock_.Advance(absl::Seconds(1));
    pace_->Observe(std::vector<absl::Duration>(8, absl::Milliseconds(20)));
    pace_->Adjust(0);
  }
  pace_->throttle().Book(100 * kMiB);
  clock_.Advance(absl::Seconds(1));
  pace_->Adjust(0);
  EXPECT_EQ(pace_->rate(), 70 * kMiB);
}

TEST_F(CopyPaceTest, OneLateProbeIsChance) {
  Make({.latency_max = kMost});
  for (int i = 0; i < 60; ++i) {
    pace_->throttle().Book(100 * kMiB);
    clock_.Advance(absl::Seconds(1));
    pace_->Observe(
        std::vector<absl::Duration>{absl::Milliseconds(1), absl::Milliseconds(1),
                                    i % 3 == 0 ? absl::Milliseconds(50) : absl::Milliseconds(2)});
    pace_->Adjust(0);
  }
  EXPECT_EQ(pace_->rate(), 0u);
}

}  // namespace
}  // namespace metal::backup
