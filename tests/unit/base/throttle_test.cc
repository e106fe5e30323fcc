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

TEST(ThrottleTest, WaitIsUntilWhatWasBookedHasPassed) {
  testing::SimulatedClock clock;
  Throttle throttle(1000, clock);
  EXPECT_EQ(throttle.Wait(), absl::ZeroDuration());
  throttle.Book(1200);  // 200 of them are the burst
  EXPECT_EQ(throttle.Wait(), absl::Seconds(1));
  clock.Sleep(absl::Seconds(1));
  EXPECT_EQ(throttle.Wait(), absl::ZeroDuration());
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
  EXPECT_EQ(free.Wait(), absl::Seconds(1));  // 200 were the burst
  EXPECT_EQ(slow.Book(20), absl::Seconds(1)) << "its own limit would not have made it wait";
  clock.Sleep(absl::Seconds(1));
  EXPECT_GT(slow.Book(1000), absl::ZeroDuration());
  EXPECT_GT(slow.Wait(), absl::Seconds(8)) << "its own limit is the lower one";
  EXPECT_LT(free.Wait(), absl::Seconds(2));
  EXPECT_EQ(whole.booked(), 2220u);
}

TEST(ThrottleTest, ARateThatChangesHoldsFromThenOn) {
  testing::SimulatedClock clock;
  Throttle throttle(0, clock);
  EXPECT_EQ(throttle.Book(1 << 20), absl::ZeroDuration());
  EXPECT_EQ(throttle.Wait(), absl::ZeroDuration());
  throttle.SetRate(1000);
  throttle.Book(1200);
  EXPECT_EQ(throttle.Wait(), absl::Seconds(1));
  throttle.SetRate(0);
  EXPECT_EQ(throttle.Wait(), absl::Seconds(1)) << "what was booked keeps its time";
  clock.Sleep(absl::Seconds(1));
  throttle.Book(1 << 20);
  EXPECT_EQ(throttle.Wait(), absl::ZeroDuration());
}

}  // namespace
}  // namespace metal::base
