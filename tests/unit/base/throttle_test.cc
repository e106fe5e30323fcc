#include "agent/base/throttle.h"

#include "gmock/gmock.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::base {
namespace {

TEST(ThrottleTest, WithoutALimitNobodyWaits) {
  testing::SimulatedClock clock;
  Throttle throttle(0, clock);
  EXPECT_EQ(throttle.Book(1ull << 40), absl::ZeroDuration());
}

TEST(ThrottleTest, KeepsTheRateOverAllCallers) {
  testing::SimulatedClock clock;
  Throttle throttle(1000, clock);
  absl::Duration waited;
  for (int i = 0; i < 100; ++i) {
    const absl::Duration wait = throttle.Book(100);
    waited += wait;
    clock.Sleep(wait);
  }
  // 10,000 bytes at 1000 per second, but for the first burst and the last piece.
  EXPECT_GE(waited, absl::Seconds(9.5));
  EXPECT_LE(waited, absl::Seconds(10));
}

TEST(ThrottleTest, ARateThatIsAStopIsRefused) {
  EXPECT_THAT(Throttle::CheckRate(0), testing::IsOk());
  EXPECT_THAT(Throttle::CheckRate(1 << 20), testing::IsOk());
  EXPECT_THAT(Throttle::CheckRate(1000), testing::StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ThrottleTest, WhoBooksWaitsUntilWhatWasBookedBeforeHasPassed) {
  testing::SimulatedClock clock;
  Throttle throttle(1000, clock);
  EXPECT_EQ(throttle.Book(0), absl::ZeroDuration());
  throttle.Book(1200);  // 200 of them are the burst
  EXPECT_EQ(throttle.Book(0), absl::Seconds(1));
  clock.Sleep(absl::Seconds(1));
  EXPECT_EQ(throttle.Book(0), absl::ZeroDuration());
}

TEST(ThrottleTest, APauseGivesNoMoreThanAShortBurst) {
  testing::SimulatedClock clock;
  Throttle throttle(1000, clock);
  throttle.Book(1000);
  clock.Sleep(absl::Hours(1));
  EXPECT_EQ(throttle.Book(200), absl::ZeroDuration());
  EXPECT_EQ(throttle.Book(100), absl::ZeroDuration());
  EXPECT_GT(throttle.Book(100), absl::ZeroDuration());
}

TEST(ThrottleTest, TheWholeIsSharedByItsParts) {
  testing::SimulatedClock clock;
  Throttle whole(1000, clock);
  Throttle free(0, clock, &whole);
  Throttle slow(100, clock, &whole);
  EXPECT_EQ(free.Book(1200), absl::ZeroDuration());
  EXPECT_EQ(free.Book(0), absl::Seconds(1));  // 200 were the burst
  EXPECT_EQ(slow.Book(20), absl::Seconds(1)) << "its own limit would not have made it wait";
  clock.Sleep(absl::Seconds(1));
  EXPECT_GT(slow.Book(1000), absl::ZeroDuration());
  EXPECT_GT(slow.Book(0), absl::Seconds(8)) << "its own limit is the lower one";
  EXPECT_LT(free.Book(0), absl::Seconds(2));
  EXPECT_EQ(whole.booked(), 2220u);
}

TEST(ThrottleTest, ARateThatChangesHoldsFromThenOn) {
  testing::SimulatedClock clock;
  Throttle throttle(0, clock);
  EXPECT_EQ(throttle.Book(1 << 20), absl::ZeroDuration());
  EXPECT_EQ(throttle.Book(0), absl::ZeroDuration());
  throttle.SetRate(1000);
  throttle.Book(1200);
  EXPECT_EQ(throttle.Book(0), absl::Seconds(1));
  throttle.SetRate(500);
  EXPECT_EQ(throttle.Book(0), absl::Seconds(1)) << "what was booked keeps its time";
  throttle.SetRate(0);
  EXPECT_EQ(throttle.Book(1 << 20), absl::ZeroDuration());
}

TEST(ThrottleTest, PartsShareTheWholeHoweverFarAheadOneBooks) {
  testing::SimulatedClock clock;
  Throttle whole(1000, clock);
  Throttle clone(0, clock, &whole);
  Throttle backup(0, clock, &whole);
  // Two connections of a clone, each of which books its next message as soon as it has sent one.
  absl::Duration free[3] = {};
  uint64_t moved[3] = {};
  for (int i = 0; i < 3000; ++i) {
    const absl::Duration now = clock.Monotonic().since_start;
    for (int user = 0; user < 3; ++user) {
      if (now < free[user]) continue;
      free[user] = now + (user == 2 ? backup : clone).Book(100);
      moved[user] += 100;
    }
    clock.Sleep(absl::Milliseconds(10));
  }
  for (const uint64_t each : moved) EXPECT_NEAR(each, 10'000, 1000);
}

TEST(ThrottleTest, WhatIsSentAndWhatWasReadForItMayDiffer) {
  testing::SimulatedClock clock;
  Throttle whole(1000, clock);
  Throttle part(1000, clock, &whole);
  part.Book(200, 2200);
  EXPECT_EQ(part.Book(0), absl::Seconds(2));
  EXPECT_EQ(whole.booked(), 2200u);
  EXPECT_EQ(part.booked(), 200u);
}

}  // namespace
}  // namespace metal::base
