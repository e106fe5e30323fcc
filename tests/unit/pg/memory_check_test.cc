#include "agent/pg/memory_check.h"

#include "gmock/gmock.h"

namespace metal::pg {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(MemoryCheckTest, MemInfoIsRead) {
  const auto facts = ParseMemInfo(
      "MemTotal:       24609328 kB\nMemFree:         100 kB\nSwapTotal:         1024 kB\n"
      "HugePages_Total:      16\nHugePages_Free:       15\nHugepagesize:       2048 kB\n");
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->kib, 24609328u);
  EXPECT_EQ(facts->swap_kib, 1024u);
  EXPECT_EQ(facts->huge_pages, 16u);
  EXPECT_EQ(facts->huge_page_kib, 2048u);
  EXPECT_FALSE(ParseMemInfo("MemTotalOf: 5 kB\nMemTotal: much\n"));
  ASSERT_TRUE(ReadMemoryFacts());
  EXPECT_GT(ReadMemoryFacts()->kib, 0u);
}

TEST(MemoryCheckTest, NoMappingIsLargerThanMemoryAndSwap) {
  MemoryFacts facts{.kib = 1000 * 1024, .swap_kib = 24 * 1024};
  EXPECT_THAT(WhyNotMapped(1024, facts), IsEmpty());
  EXPECT_THAT(WhyNotMapped(1025, facts),
              HasSubstr("could not map anonymous shared memory: Cannot allocate memory (1025 MiB "
                        "wanted, 1024 MiB"));
  facts.maps_anything = true;
  EXPECT_THAT(WhyNotMapped(1025, facts), IsEmpty());
}

TEST(MemoryCheckTest, HugePagesHaveToBeThere) {
  const MemoryFacts facts{.kib = 1 << 20, .huge_pages = 8, .huge_page_kib = 2048};
  EXPECT_THAT(WhyNoHugePages(8, facts), IsEmpty());
  EXPECT_THAT(WhyNoHugePages(9, facts), HasSubstr("9 huge pages of 2048 KiB wanted, 8 there"));
}

}  // namespace
}  // namespace metal::pg
