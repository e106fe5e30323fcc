#include "tools/metalctl/duration.h"

#include "gtest/gtest.h"

namespace metal::ctl {
namespace {

TEST(DurationTest, BareNumbersAreSecondsAndFractionsCount) {
  EXPECT_EQ(ParseDuration("0.5"), absl::Milliseconds(500));
  EXPECT_EQ(ParseDuration("30"), absl::Seconds(30));
  EXPECT_EQ(ParseDuration(".25"), absl::Milliseconds(250));
}

TEST(DurationTest, UnitsMayBeNamedAndAdded) {
  EXPECT_EQ(ParseDuration("500ms"), absl::Milliseconds(500));
  EXPECT_EQ(ParseDuration("0.5s"), absl::Milliseconds(500));
  EXPECT_EQ(ParseDuration("2m"), absl::Minutes(2));
  EXPECT_EQ(ParseDuration("1m30s"), absl::Seconds(90));
  EXPECT_EQ(ParseDuration("1h"), absl::Hours(1));
}

TEST(DurationTest, NonsenseIsRefused) {
  for (const char* text : {"", "0", "0s", "-1", "+1", "inf", "nan", "1e3", "5x", "5 s", "s", ".",
                           "1..5", "s5", "0x10", "1000h", "99999999999999999999"}) {
    EXPECT_FALSE(ParseDuration(text)) << text;
  }
}

TEST(DurationTest, ARequestCarriesTheFraction) {
  const auto proto = DurationProto(absl::Milliseconds(1500));
  EXPECT_EQ(proto.seconds(), 1);
  EXPECT_EQ(proto.nanos(), 500'000'000);
  EXPECT_EQ(ParseDuration(DurationText(absl::Milliseconds(1500))), absl::Milliseconds(1500));
}

}  // namespace
}  // namespace metal::ctl
