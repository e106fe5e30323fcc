#include "agent/stream/page_checksum.h"

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "agent/stream/cpu.h"
#include "agent/stream/page_checksum_variants.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::stream {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Written by PostgreSQL 15 with checksums on, and found valid by its pg_checksums.
struct GoldenPage {
  const char* what;
  base::BlockNumber block;
  uint16_t checksum;
};
constexpr GoldenPage kGolden[] = {{"heap", 7271, 40936},
                                  {"btree", 3, 20935},
                                  {"fsm", 0, 6089},
                                  {"vm", 0, 56617},
                                  {"sequence", 0, 38047}};

std::string GoldenPages() {
  const auto path = std::filesystem::path(__FILE__).parent_path() / "testdata/pages_pg15.bin";
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::span<const std::byte> Page(const std::string& pages, size_t index) {
  return std::as_bytes(std::span(pages)).subspan(index * kPageSize, kPageSize);
}

std::string RandomPages(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string pages(count * kPageSize, '\0');
  for (size_t at = 0; at < pages.size(); at += 8) {
    const uint64_t word = random();
    memcpy(pages.data() + at, &word, 8);
  }
  return pages;
}

// The algorithm as PostgreSQL states it, on a copy with pd_checksum zeroed.
uint16_t ReferenceChecksum(std::span<const std::byte> page, base::BlockNumber block,
                           const uint32_t (&seeds)[32]) {
  std::array<uint32_t, 2048> words;
  memcpy(words.data(), page.data(), kPageSize);
  words[2] &= 0xFFFF0000;
  std::array<uint32_t, 32> sums;
  std::copy(std::begin(seeds), std::end(seeds), sums.begin());
  const auto mix = [](uint32_t& sum, uint32_t value) {
    const uint32_t t = sum ^ value;
    sum = t * 16777619 ^ (t >> 17);
  };
  for (size_t i = 0; i < words.size(); ++i) mix(sums[i % 32], words[i]);
  for (int round = 0; round < 2; ++round) {
    for (uint32_t& sum : sums) mix(sum, 0);
  }
  uint32_t result = 0;
  for (const uint32_t sum : sums) result ^= sum;
  return static_cast<uint16_t>((result ^ block) % 65535 + 1);
}

constexpr uint32_t kSeeds[32] = {
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756};

TEST(PageChecksumTest, PagesWrittenByPostgresVerify) {
  const std::string pages = GoldenPages();
  ASSERT_EQ(pages.size(), std::size(kGolden) * kPageSize);
  for (size_t i = 0; i < std::size(kGolden); ++i) {
    const auto page = Page(pages, i);
    EXPECT_EQ(VerifyPage(page, kGolden[i].block), PageVerdict::kValid) << kGolden[i].what;
    EXPECT_EQ(PageChecksum(page, kGolden[i].block), kGolden[i].checksum) << kGolden[i].what;
    // The same page at another place is not valid: a misdirected write is seen.
    EXPECT_EQ(VerifyPage(page, kGolden[i].block + 1), PageVerdict::kInvalid) << kGolden[i].what;
  }
  EXPECT_EQ(PageLsn(Page(pages, 0)).ToString(), "0/11D88D98");
}

TEST(PageChecksumTest, EveryBitCounts) {
  std::string pages = GoldenPages();
  for (size_t bit = 0; bit < kPageSize * 8; bit += 101) {
    pages[bit / 8] = static_cast<char>(pages[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(VerifyPage(Page(pages, 0), kGolden[0].block), PageVerdict::kInvalid) << bit;
    pages[bit / 8] = static_cast<char>(pages[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(PageChecksumTest, StoredChecksumDoesNotChangeTheComputedOne) {
  std::string page = RandomPages(1, 3);
  const uint16_t before = PageChecksum(Page(page, 0), 42);
  for (const size_t at : {8, 9}) page[at] = static_cast<char>(~page[at]);
  EXPECT_EQ(PageChecksum(Page(page, 0), 42), before);
  page[10] = static_cast<char>(~page[10]);  // pd_flags, the other half of the same word
  EXPECT_NE(PageChecksum(Page(page, 0), 42), before);
}

TEST(PageChecksumTest, AgreesWithTheReferenceForAnyBlock) {
  const std::string pages = RandomPages(33, 11);
  for (size_t i = 0; i < 33; ++i) {
    for (const base::BlockNumber block : {0u, 1u, 131071u, 131072u, 0xFFFFFFFEu}) {
      EXPECT_EQ(PageChecksum(Page(pages, i), block),
                ReferenceChecksum(Page(pages, i), block, kSeeds));
    }
  }
}

TEST(PageChecksumTest, AllVariantsAgreeForAnyNumberOfPagesAtAnyAddress) {
  struct Variant {
    const char* name;
    PageHashFunction* hash;
  };
  std::vector<Variant> variants = {{"portable", PageHashesBaseline}};
#if defined(__x86_64__)
  if (CpuHasAvx2()) variants.push_back({"avx2", PageHashesAvx2});
  if (CpuHasAvx512()) variants.push_back({"avx512", PageHashesAvx512});
#endif
  for (size_t count = 0; count <= 11; ++count) {
    const std::string pages = RandomPages(count + 1, count);
    for (const size_t shift : {size_t{0}, size_t{1}, size_t{4}}) {
      const auto* from = reinterpret_cast<const unsigned char*>(pages.data()) + shift;
      for (const Variant& variant : variants) {
        std::vector<uint32_t> hashes(count + 1, 0xDEAD);
        variant.hash(from, count, hashes.data());
        EXPECT_EQ(hashes[count], 0xDEADu) << variant.name << " wrote past the end";
        for (size_t i = 0; i < count; ++i) {
          const auto page =
              std::as_bytes(std::span(pages)).subspan(shift + i * kPageSize, kPageSize);
          EXPECT_EQ(hashes[i] % 65535 + 1, ReferenceChecksum(page, 0, kSeeds)) << variant.name;
        }
      }
    }
  }
}

TEST(PageVerdictTest, ZeroPageIsNewAtAnyBlock) {
  const std::string page(kPageSize, '\0');
  EXPECT_EQ(VerifyPage(Page(page, 0), 0), PageVerdict::kNew);
  EXPECT_EQ(VerifyPage(Page(page, 0), 12345), PageVerdict::kNew);
}

TEST(PageVerdictTest, NewPageWithAnyOtherByteIsInvalid) {
  for (const size_t at : {size_t{0}, size_t{8}, size_t{13}, size_t{16}, kPageSize - 1}) {
    std::string page(kPageSize, '\0');
    page[at] = 1;
    EXPECT_EQ(VerifyPage(Page(page, 0), 0), PageVerdict::kInvalid) << at;
  }
}

TEST(PageVerdictTest, ZeroUpperIsInvalidEvenWithAMatchingChecksum) {
  std::string page = RandomPages(1, 5);
  page[14] = page[15] = 0;
  const uint16_t checksum = PageChecksum(Page(page, 0), 0);
  memcpy(page.data() + 8, &checksum, 2);
  EXPECT_EQ(VerifyPage(Page(page, 0), 0), PageVerdict::kInvalid);
}

TEST(VerifyPagesTest, ListsExactlyTheBadBlocks) {
  constexpr size_t kCount = 300;  // more than one inner batch
  constexpr base::BlockNumber kFirst = 131072 - 7;
  std::string pages = RandomPages(kCount, 9);
  for (size_t i = 0; i < kCount; ++i) {
    const auto checksum = PageChecksum(Page(pages, i), static_cast<base::BlockNumber>(kFirst + i));
    memcpy(pages.data() + i * kPageSize + 8, &checksum, 2);
  }
  memset(pages.data() + 5 * kPageSize, 0, kPageSize);
  std::vector<base::BlockNumber> bad;
  VerifyPages(std::as_bytes(std::span(pages)), kFirst, bad);
  EXPECT_THAT(bad, IsEmpty());

  for (const size_t i : {0, 127, 128, 299}) pages[i * kPageSize + 4000] ^= 0x10;
  pages[5 * kPageSize + 100] = 1;
  VerifyPages(std::as_bytes(std::span(pages)), kFirst, bad);
  EXPECT_THAT(bad, ElementsAre(kFirst, kFirst + 5, kFirst + 127, kFirst + 128, kFirst + 299));
}

TEST(VerifyPagesTest, NoPagesIsFine) {
  std::vector<base::BlockNumber> bad;
  VerifyPages({}, 0, bad);
  EXPECT_THAT(bad, IsEmpty());
}

TEST(PageLsnTest, HighHalfComesFirst) {
  std::string page(kPageSize, '\0');
  const uint32_t halves[2] = {0x16, 0xB374D848};
  memcpy(page.data(), halves, sizeof halves);
  EXPECT_EQ(PageLsn(Page(page, 0)).ToString(), "16/B374D848");
}

}  // namespace
}  // namespace metal::stream
