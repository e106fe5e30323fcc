#include "agent/disk/sources/block_stat.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/simulated_clock.h"

namespace metal::disk {
namespace {

using metal::testing::SimulatedClock;
using ::testing::DoubleEq;
using ::testing::HasSubstr;
using ::testing::Optional;

TEST(BlockStatTest, AllThreeFormatsAreRead) {
  const auto old = ParseBlockStat("  100 2 800 50 200 3 1600 70 4 90 120\n");
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(old->reads, 100u);
  EXPECT_EQ(old->read_sectors, 800u);
  EXPECT_EQ(old->read_time, absl::Milliseconds(50));
  EXPECT_EQ(old->writes, 200u);
  EXPECT_EQ(old->write_sectors, 1600u);
  EXPECT_EQ(old->write_time, absl::Milliseconds(70));
  EXPECT_EQ(old->in_flight, 4u);
  EXPECT_EQ(old->busy, absl::Milliseconds(90));
  EXPECT_EQ(old->flushes, 0u);
  const auto discards = ParseBlockStat("100 2 800 50 200 3 1600 70 4 90 120 5 0 40 6");
  ASSERT_TRUE(discards.has_value());
  EXPECT_EQ(discards->discards, 5u);
  const auto flushes = ParseBlockStat("100 2 800 50 200 3 1600 70 4 90 120 5 0 40 6 7 8");
  ASSERT_TRUE(flushes.has_value());
  EXPECT_EQ(flushes->flushes, 7u);
  EXPECT_EQ(flushes->flush_time, absl::Milliseconds(8));
  EXPECT_EQ(flushes->completions(), 312u);
}

TEST(BlockStatTest, WhatIsNoStatIsRejected) {
  for (const char* text : {"", "1 2 3", "1 2 3 4 5 6 7 8 9 10 x", "-1 2 3 4 5 6 7 8 9 10 11",
                           "99999999999999999999 2 3 4 5 6 7 8 9 10 11"}) {
    EXPECT_FALSE(ParseBlockStat(text).has_value()) << text;
  }
  EXPECT_THAT(ParseInflight("       3        4\n"), Optional(7u));
  EXPECT_FALSE(ParseInflight("3").has_value());
}

class Watched : public ::testing::Test {
 protected:
  // One second later.
  std::optional<Evidence> Second(uint64_t in_flight) {
    clock_.Advance(absl::Seconds(1));
    return Now(in_flight);
  }
  std::optional<Evidence> Now(uint64_t in_flight) {
    return judge_.Observe(stat_, in_flight, clock_.Monotonic(), clock_.Now());
  }

  SimulatedClock clock_;
  BlockStat stat_;
  BlockStatJudge judge_{"nvme0n1"};
};

TEST_F(Watched, ASecondsWorkIsMeasured) {
  EXPECT_FALSE(Now(0).has_value());
  EXPECT_FALSE(judge_.activity().has_value());
  stat_.reads += 100;
  stat_.read_sectors += 1600;
  stat_.read_time += absl::Milliseconds(50);
  stat_.writes += 10;
  stat_.write_sectors += 160;
  stat_.write_time += absl::Milliseconds(40);
  stat_.flushes += 4;
  stat_.flush_time += absl::Milliseconds(8);
  stat_.busy += absl::Milliseconds(250);
  EXPECT_FALSE(Second(2).has_value());
  ASSERT_TRUE(judge_.activity().has_value());
  const BlockActivity& activity = *judge_.activity();
  EXPECT_THAT(activity.bytes_per_second(), DoubleEq(1760 * 512));
  EXPECT_THAT(activity.reads_per_second, DoubleEq(100));
  EXPECT_THAT(activity.read_latency, Optional(absl::Microseconds(500)));
  EXPECT_THAT(activity.write_latency, Optional(absl::Milliseconds(4)));
  EXPECT_THAT(activity.flush_latency, Optional(absl::Milliseconds(2)));
  EXPECT_THAT(activity.busy, DoubleEq(0.25));
  EXPECT_EQ(activity.in_flight, 2u);
  EXPECT_FALSE(Second(0).has_value());
  EXPECT_FALSE(judge_.activity()->read_latency.has_value());
}

TEST_F(Watched, RequestsThatNeverCompleteAreAStall) {
  Now(0);
  EXPECT_FALSE(Second(3).has_value());
  EXPECT_FALSE(Second(3).has_value());
  const auto stalled = Second(4);
  ASSERT_TRUE(stalled.has_value());
  EXPECT_EQ(stalled->fault_class, FaultClass::kStalled);
  EXPECT_EQ(stalled->witness, Witness::kSysfs);
  EXPECT_THAT(stalled->text, HasSubstr("none of 4 requests in flight for 3.0 s"));
  EXPECT_FALSE(Second(4).has_value());
  EXPECT_FALSE(Second(4).has_value());
  EXPECT_TRUE(Second(4).has_value());  // still
  stat_.reads += 2;                    // the last of three is done within the limit
  const auto ended = Second(3);
  ASSERT_TRUE(ended.has_value());
  EXPECT_TRUE(ended->clears);
  EXPECT_FALSE(Second(0).has_value());
}

TEST_F(Watched, OneRequestAfterTheOtherIsNoStallHoweverSlow) {
  Now(1);
  for (int i = 0; i < 20; ++i) {
    if (i % 2 == 0) stat_.writes += 1;
    EXPECT_FALSE(Second(1).has_value());
  }
}

TEST_F(Watched, AQueueThatWouldTakeLongerThanAStallIsOne) {
  Now(0);
  std::optional<Evidence> told;
  for (int i = 0; i < 3; ++i) {
    ASSERT_FALSE(told.has_value());
    stat_.reads += 1;
    told = Second(8);
  }
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->fault_class, FaultClass::kStalled);
  EXPECT_THAT(told->text, HasSubstr("1.0 of 8 requests in flight a second for 3.0 s"));
  stat_.reads += 8;
  const auto over = Second(8);
  ASSERT_TRUE(over.has_value());
  EXPECT_TRUE(over->clears);
}

TEST_F(Watched, AFlushThatCompletesIsLife) {
  Now(1);
  for (int i = 0; i < 10; ++i) {
    stat_.flushes += 1;
    EXPECT_FALSE(Second(1).has_value());
  }
}

TEST_F(Watched, AnAgentThatSleptHasSeenNothing) {
  Now(0);
  Second(3);
  clock_.Advance(absl::Minutes(1));
  EXPECT_FALSE(Now(3).has_value());
  EXPECT_FALSE(judge_.activity().has_value());
  EXPECT_FALSE(Second(3).has_value());
  EXPECT_FALSE(Second(3).has_value());
  EXPECT_TRUE(Second(3).has_value());
}

TEST_F(Watched, CountersThatGoBackAreAnotherDisk) {
  stat_.reads = 1000;
  Now(0);
  stat_.reads = 10;
  EXPECT_FALSE(Second(0).has_value());
  EXPECT_FALSE(judge_.activity().has_value());
}

}  // namespace
}  // namespace metal::disk
