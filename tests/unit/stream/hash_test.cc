#include "agent/stream/hash.h"

#include <string>
#include <vector>

#include "agent/stream/cpu.h"
#include "agent/stream/hash_variants.h"
#include "gtest/gtest.h"

namespace metal::stream {
namespace {

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// The sanity-check buffer of the xxHash project: bytes of a linear congruential generator.
std::string SanityBuffer(size_t length) {
  std::string buffer(length, '\0');
  uint64_t generator = 2654435761U;
  for (char& byte : buffer) {
    byte = static_cast<char>(generator >> 56);
    generator *= 11400714785074694797ULL;
  }
  return buffer;
}

// Values of the xxHash project's own sanity test (tests/sanity_test_vectors.h), seed 0.
TEST(Xxh3Test, MatchesPublishedVectors) {
  struct Vector {
    size_t length;
    uint64_t hash;
  };
  constexpr Vector kVectors[] = {
      {0, 0x2D06800538D394C2ULL},    {1, 0xC44BDFF4074EECDBULL},    {6, 0x27B56A84CD2D7325ULL},
      {12, 0xA713DAF0DFBB77E7ULL},   {24, 0xA3FE70BF9D3510EBULL},   {48, 0x397DA259ECBA1F11ULL},
      {80, 0xBCDEFBBB2C47C90AULL},   {195, 0xCD94217EE362EC3AULL},  {403, 0xCDEB804D65C6DEA4ULL},
      {512, 0x617E49599013CB6BULL},  {2048, 0xDD59E2C3A5F038E0ULL}, {2240, 0x6E73A90539CF2948ULL},
      {2367, 0xCB37AEB9E5D361EDULL},
  };
  const std::string buffer = SanityBuffer(2367);
  for (const Vector& vector : kVectors) {
    EXPECT_EQ(Xxh3(Bytes(buffer).first(vector.length)), vector.hash) << vector.length;
  }
}

TEST(Xxh3Test, AllVariantsAgreeAtEveryLength) {
  struct Variant {
    const char* name;
    uint64_t (*hash)(const void*, size_t);
  };
  std::vector<Variant> variants = {{"baseline", Xxh3Baseline}};
#if defined(__x86_64__)
  if (CpuHasAvx2()) variants.push_back({"avx2", Xxh3Avx2});
  if (CpuHasAvx512()) variants.push_back({"avx512", Xxh3Avx512});
#endif
  const std::string buffer = SanityBuffer((1 << 20) + 64);
  for (size_t length = 0; length <= buffer.size() - 3; length += length < 3000 ? 1 : 70'001) {
    for (const size_t shift : {size_t{0}, size_t{3}}) {
      const uint64_t expected = Xxh3(Bytes(buffer).subspan(shift, length));
      for (const Variant& variant : variants) {
        EXPECT_EQ(variant.hash(buffer.data() + shift, length), expected)
            << variant.name << " length " << length;
      }
    }
  }
}

TEST(Xxh3Test, OneBitChangesTheHash) {
  std::string frame = SanityBuffer(1 << 20);
  const uint64_t before = Xxh3(Bytes(frame));
  for (size_t at = 0; at < frame.size(); at += 65'537) {
    frame[at] ^= 1;
    EXPECT_NE(Xxh3(Bytes(frame)), before) << at;
    frame[at] ^= 1;
  }
}

}  // namespace
}  // namespace metal::stream
