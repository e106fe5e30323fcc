#include "agent/base/units.h"

#include <gtest/gtest.h>

#include <random>

namespace metal::base {
namespace {

TEST(LsnTest, TextFormIsThatOfPostgres) {
  EXPECT_EQ(Lsn{0x16B374D848}.ToString(), "16/B374D848");
  EXPECT_EQ(Lsn{0}.ToString(), "0/0");
  EXPECT_EQ(Lsn{0x100000001}.ToString(), "1/1");
  EXPECT_EQ(Lsn{UINT64_MAX}.ToString(), "FFFFFFFF/FFFFFFFF");
}

TEST(LsnTest, EveryValueSurvivesTheRoundTrip) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 10'000; ++i) {
    const Lsn lsn{random() >> (random() % 64)};
    ASSERT_EQ(Lsn::Parse(lsn.ToString()), lsn) << lsn.ToString();
  }
}

TEST(LsnTest, ParseRefusesWhatIsNotAnLsn) {
  for (const char* text : {"", "/", "1/", "/1", "1", "1/2/3", " 1/2", "1/2 ", "g/1", "0x1/2",
                           "-1/2", "+1/2", "123456789/0", "0/123456789"}) {
    EXPECT_FALSE(Lsn::Parse(text).has_value()) << text;
  }
  EXPECT_EQ(Lsn::Parse("16/b374d848"), Lsn{0x16B374D848});
}

TEST(LsnTest, DistanceIsNeverNegative) {
  EXPECT_EQ(LsnDistance({10}, {25}), 15u);
  EXPECT_EQ(LsnDistance({25}, {10}), 0u);
}

TEST(ByteCountTest, TextHasThreeDigitsOrSo) {
  EXPECT_EQ(ByteCount{0}.ToString(), "0 B");
  EXPECT_EQ(ByteCount{1023}.ToString(), "1023 B");
  EXPECT_EQ(ByteCount{1024}.ToString(), "1.0 KiB");
  EXPECT_EQ(ByteCount{512 * kKiB}.ToString(), "512 KiB");
  EXPECT_EQ(ByteCount{3650722201}.ToString(), "3.4 GiB");
  EXPECT_EQ(ByteCount{UINT64_MAX}.ToString(), "16384 PiB");
}

TEST(ByteCountTest, ParseTakesBinaryUnits) {
  EXPECT_EQ(ByteCount::Parse("123"), ByteCount{123});
  EXPECT_EQ(ByteCount::Parse("123B"), ByteCount{123});
  EXPECT_EQ(ByteCount::Parse("8KiB"), ByteCount{8192});
  EXPECT_EQ(ByteCount::Parse("8kB"), ByteCount{8192});
  EXPECT_EQ(ByteCount::Parse("8 mib"), ByteCount{8 * kMiB});
  EXPECT_EQ(ByteCount::Parse("1GB"), ByteCount{kGiB});
  EXPECT_EQ(ByteCount::Parse("2TiB"), ByteCount{2048 * kGiB});
}

TEST(ByteCountTest, ParseRefusesNonsenseAndOverflow) {
  for (const char* text : {"", "KiB", "-1", "1.5GiB", "1PB", "1 2", "0x10", "99999999999999999999",
                           "18446744073709551615KiB"}) {
    EXPECT_FALSE(ByteCount::Parse(text).has_value()) << text;
  }
}

TEST(WalFileNameTest, KnownNames) {
  EXPECT_EQ(WalFileName(1, Lsn{0}, 16 * kMiB), "000000010000000000000000");
  EXPECT_EQ(WalFileName(1, Lsn{0x16B374D848}, 16 * kMiB), "0000000100000016000000B3");
  EXPECT_EQ(WalFileName(0x2A, Lsn{0x1FFFFFFFF}, 16 * kMiB), "0000002A00000001000000FF");
  EXPECT_EQ(WalFileName(1, Lsn{0x180000000}, kGiB), "000000010000000100000002");
}

TEST(WalFileNameTest, EverySegmentSizeSurvivesTheRoundTrip) {
  std::mt19937_64 random(4);
  for (uint64_t size = kMiB; size <= kGiB; size *= 2) {
    for (int i = 0; i < 500; ++i) {
      const Lsn lsn{random()};
      const auto timeline = static_cast<TimelineId>(random() | 1);
      const auto segment = ParseWalFileName(WalFileName(timeline, lsn, size), size);
      ASSERT_TRUE(segment.has_value());
      ASSERT_EQ(segment->timeline, timeline);
      ASSERT_EQ(segment->start.value, lsn.value / size * size);
    }
  }
}

TEST(WalFileNameTest, ParseRefusesOtherFiles) {
  for (const char* name :
       {"", "00000002.history", "000000010000000000000001.partial", "00000001000000000000000g",
        "00000001000000000000000a",     // lower case
        "000000000000000000000001",     // timeline 0
        "000000010000000000000100"}) {  // beyond 16 MiB segments
    EXPECT_FALSE(ParseWalFileName(name, 16 * kMiB).has_value()) << name;
  }
}

}  // namespace
}  // namespace metal::base
