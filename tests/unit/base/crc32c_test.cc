#include "agent/base/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace metal::base {
namespace {

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// One bit at a time, straight from the definition: shares nothing with what is tested.
uint32_t PortableCrc32c(std::span<const std::byte> data) {
  uint32_t crc = 0xffffffffu;
  for (const std::byte byte : data) {
    crc ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

std::vector<std::byte> RandomBytes(std::mt19937_64& random, size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(Crc32cTest, KnownVectors) {  // RFC 3720, appendix B.4, and the customary check value
  EXPECT_EQ(Crc32c({}), 0u);
  EXPECT_EQ(Crc32c(Bytes("123456789")), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::vector<std::byte>(32, std::byte{0xff})), 0x62a8ab43u);
  std::vector<std::byte> ascending;
  for (int i = 0; i < 32; ++i) ascending.push_back(static_cast<std::byte>(i));
  EXPECT_EQ(Crc32c(ascending), 0x46dd794eu);
}

TEST(Crc32cTest, AgreesWithTheDefinitionAtEveryLengthAndAlignment) {
  constexpr uint64_t kSeed = 20261122;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  const auto data = RandomBytes(random, 9000);
  for (size_t length = 0; length < 600; ++length) {
    const auto part = std::span(data).subspan(length % 17, length);
    ASSERT_EQ(Crc32c(part), PortableCrc32c(part)) << "length " << length;
  }
  EXPECT_EQ(Crc32c(data), PortableCrc32c(data));
}

TEST(Crc32cTest, ExtendingInPiecesEqualsTheWhole) {
  std::mt19937_64 random(1);
  const auto data = RandomBytes(random, 4096);
  for (size_t cut = 0; cut <= data.size(); cut += 61) {
    const uint32_t head = Crc32c(std::span(data).first(cut));
    ASSERT_EQ(Crc32cExtend(head, std::span(data).subspan(cut)), Crc32c(data)) << "cut at " << cut;
  }
}

TEST(Crc32cTest, CombineEqualsTheWhole) {
  constexpr uint64_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 500; ++i) {
    const auto data = RandomBytes(random, random() % 70'000);
    const size_t cut = data.empty() ? 0 : random() % (data.size() + 1);
    const auto head = std::span(data).first(cut);
    const auto tail = std::span(data).subspan(cut);
    ASSERT_EQ(Crc32cCombine(Crc32c(head), Crc32c(tail), tail.size()), Crc32c(data))
        << data.size() << " bytes cut at " << cut;
  }
}

TEST(Crc32cTest, CombineWithNothingChangesNothing) {
  EXPECT_EQ(Crc32cCombine(0x12345678, 0, 0), 0x12345678u);
  EXPECT_EQ(Crc32cCombine(0, 0x12345678, 1 << 20), 0x12345678u);
}

}  // namespace
}  // namespace metal::base
