#include "agent/disk/space/space_history.h"

#include <functional>

#include "agent/base/units.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::disk {
namespace {

using base::kGiB;
using ::testing::AllOf;
using ::testing::Eq;
using ::testing::Ge;
using ::testing::Gt;
using ::testing::Le;
using ::testing::Lt;
using ::testing::Optional;

const absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);
constexpr double kGiBPerHour = static_cast<double>(kGiB) / 3600;

// What `used` says, looked at once a minute.
SpaceHistory Observed(absl::Duration span, const std::function<uint64_t(absl::Duration)>& used) {
  SpaceHistory history;
  for (absl::Duration at; at < span; at += absl::Minutes(1)) history.Add(kStart + at, used(at));
  return history;
}

uint64_t Growing(absl::Duration at, double gib_per_hour) {
  return 100 * kGiB +
         static_cast<uint64_t>(absl::ToDoubleHours(at) * gib_per_hour * static_cast<double>(kGiB));
}

TEST(SpaceHistoryTest, KnowsNothingAtFirst) {
  const auto steady = [](absl::Duration at) { return Growing(at, 1); };
  EXPECT_EQ(SpaceHistory().RecentGrowth(), std::nullopt);
  EXPECT_EQ(Observed(absl::Minutes(100), steady).RecentGrowth(), std::nullopt);
  const SpaceHistory history = Observed(absl::Minutes(135), steady);
  EXPECT_THAT(history.RecentGrowth(),
              Optional(AllOf(Gt(0.9 * kGiBPerHour), Lt(1.1 * kGiBPerHour))));
  EXPECT_EQ(history.LongGrowth(), std::nullopt) << "not a day yet";
  EXPECT_EQ(history.FormerPeak(), std::nullopt);
}

TEST(SpaceHistoryTest, SteadyGrowthIsMeasuredOverHoursAndDays) {
  // 1 GiB an hour for three days, then 4 GiB an hour.
  const SpaceHistory history = Observed(absl::Hours(82), [](absl::Duration at) {
    return Growing(std::min(at, absl::Hours(72)), 1) +
           (at > absl::Hours(72) ? 4 * (Growing(at - absl::Hours(72), 1) - 100 * kGiB) : 0);
  });
  EXPECT_THAT(history.RecentGrowth(),
              Optional(AllOf(Gt(3.8 * kGiBPerHour), Lt(4.2 * kGiBPerHour))));
  EXPECT_THAT(history.LongGrowth(), Optional(AllOf(Gt(0.9 * kGiBPerHour), Lt(1.1 * kGiBPerHour))));
}

// WAL between two checkpoints, a sort on disk, a backup or a load: none of them is a trend.
TEST(SpaceHistoryTest, ABurstIsNoGrowth) {
  const SpaceHistory checkpoints = Observed(absl::Hours(8), [](absl::Duration at) {
    return 100 * kGiB + static_cast<uint64_t>(absl::ToInt64Minutes(at) % 5) * kGiB;
  });
  EXPECT_THAT(checkpoints.RecentGrowth(), Optional(Eq(0)));
  for (int begin = 0; begin <= 420; begin += 20) {
    const SpaceHistory jump = Observed(absl::Hours(8), [&](absl::Duration at) {
      const int64_t into = std::clamp<int64_t>(absl::ToInt64Minutes(at) - begin, 0, 60);
      return 100 * kGiB + static_cast<uint64_t>(into) * 2 * kGiB;  // 120 GiB in an hour, kept
    });
    EXPECT_THAT(jump.RecentGrowth(), Optional(Le(0.1 * kGiBPerHour))) << begin;
    const SpaceHistory passing = Observed(absl::Hours(8), [&](absl::Duration at) {
      const int64_t minute = absl::ToInt64Minutes(at);
      return 100 * kGiB + (minute >= begin && minute < begin + 45 ? 200 * kGiB : 0);
    });
    EXPECT_THAT(passing.RecentGrowth(), Optional(Eq(0))) << begin;
  }
}

TEST(SpaceHistoryTest, SurvivesARestart) {
  const SpaceHistory before =
      Observed(absl::Hours(30), [](absl::Duration at) { return Growing(at, 2); });
  SpaceHistory after = SpaceHistory::Decode(before.Encode());
  EXPECT_EQ(after.RecentGrowth(), before.RecentGrowth());
  EXPECT_EQ(after.LongGrowth(), before.LongGrowth());
  // A gap of an hour is bridged; after one of two days nothing is known of the last hours.
  for (int minute = 0; minute < 60; ++minute) {
    const absl::Duration at = absl::Hours(31) + absl::Minutes(minute);
    after.Add(kStart + at, Growing(at, 2));
  }
  EXPECT_THAT(after.RecentGrowth(), Optional(Gt(1.8 * kGiBPerHour)));
  after.Add(kStart + absl::Hours(79), Growing(absl::Hours(79), 2));
  after.Add(kStart + absl::Hours(80), Growing(absl::Hours(80), 2));
  EXPECT_EQ(after.RecentGrowth(), std::nullopt);
}

TEST(SpaceHistoryTest, TextThatIsNoneGivesNothing) {
  for (const char* text : {"", "x", "1:2 1:3", "5:1 4:1", "1:", ":1", "1:2:3", "1:-4"}) {
    EXPECT_EQ(SpaceHistory::Decode(text).Encode(), "") << text;
  }
  EXPECT_EQ(SpaceHistory::Decode("1:2 7:3").Encode(), "1:2 7:3");
}

TEST(SpaceHistoryTest, AClockThatIsSetBackForgetsWhatIsAhead) {
  SpaceHistory history =
      Observed(absl::Hours(10), [](absl::Duration at) { return Growing(at, 1); });
  history.Add(kStart, 1);
  EXPECT_EQ(history.RecentGrowth(), std::nullopt);
  EXPECT_EQ(history.Encode(), "");
}

TEST(SpaceHistoryTest, IsBoundedToAWeek) {
  const SpaceHistory history =
      Observed(absl::Hours(24 * 20), [](absl::Duration at) { return Growing(at, 1); });
  const std::string text = history.Encode();
  EXPECT_THAT(std::ranges::count(text, ':'), AllOf(Ge(1007), Le(1009)));
  EXPECT_THAT(history.LongGrowth(), Optional(Gt(0.95 * kGiBPerHour)));
}

TEST(SpaceHistoryTest, TimeUntilFull) {
  EXPECT_EQ(TimeUntilFull(kGiB, std::nullopt), std::nullopt);
  EXPECT_EQ(TimeUntilFull(kGiB, 0), std::nullopt);
  EXPECT_EQ(TimeUntilFull(kGiB, -5), std::nullopt);
  EXPECT_EQ(TimeUntilFull(kGiB, 1e-9), std::nullopt) << "in a lifetime";
  EXPECT_EQ(TimeUntilFull(7200, 2), absl::Hours(1));
}

}  // namespace
}  // namespace metal::disk
