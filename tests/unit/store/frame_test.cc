#include "agent/store/frame.h"

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "agent/base/crc32c.h"
#include "agent/stream/hash.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::store {
namespace {

using testing::StatusIs;

std::vector<std::byte> MakeFrame(stream::CodecKind codec, size_t raw_length,
                                 std::vector<std::byte>& raw) {
  std::minstd_rand random(7);
  raw.resize(raw_length);
  for (std::byte& byte : raw) byte = static_cast<std::byte>(random() % 7);
  auto encoder = stream::MakeEncoder(codec, 1);
  std::vector<std::byte> frame(kFrameHeaderSize + stream::EncodedBound(raw_length));
  const auto payload = std::span(frame).subspan(kFrameHeaderSize);
  const size_t length = *(*encoder)->Encode(raw, payload);
  FrameHeader header{codec, static_cast<uint32_t>(raw_length), static_cast<uint32_t>(length),
                     stream::Xxh3(payload.first(length)), base::Crc32c(raw)};
  EncodeFrameHeader(header, std::span(frame).first<kFrameHeaderSize>());
  frame.resize(kFrameHeaderSize + length);
  return frame;
}

TEST(FrameTest, EveryCodecSurvivesTheRoundTrip) {
  const auto decoder = stream::MakeDecoder();
  for (const auto codec :
       {stream::CodecKind::kNone, stream::CodecKind::kZstd, stream::CodecKind::kLz4}) {
    for (const size_t length : {size_t{1}, size_t{8191}, size_t{kFrameRawMax}}) {
      std::vector<std::byte> raw, out(kFrameRawMax);
      const auto frame = MakeFrame(codec, length, raw);
      const auto header = DecodeFrame(frame, out, *decoder);
      ASSERT_OK(header);
      EXPECT_EQ(header->raw_length, length);
      EXPECT_TRUE(std::equal(raw.begin(), raw.end(), out.begin()));
    }
  }
}

TEST(FrameTest, EveryBitFlipIsFound) {
  const auto decoder = stream::MakeDecoder();
  std::vector<std::byte> raw, out(kFrameRawMax);
  const auto good = MakeFrame(stream::CodecKind::kZstd, 5000, raw);
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      auto bad = good;
      bad[at] ^= static_cast<std::byte>(1 << bit);
      ASSERT_THAT(DecodeFrame(bad, out, *decoder), StatusIs(absl::StatusCode::kDataLoss)) << at;
    }
  }
}

TEST(FrameTest, EveryTruncationIsFound) {
  const auto decoder = stream::MakeDecoder();
  std::vector<std::byte> raw, out(kFrameRawMax);
  const auto good = MakeFrame(stream::CodecKind::kLz4, 5000, raw);
  for (size_t length = 0; length < good.size(); ++length) {
    ASSERT_THAT(DecodeFrame(std::span(good).first(length), out, *decoder),
                StatusIs(absl::StatusCode::kDataLoss));
  }
}

TEST(FrameTest, AFrameLongerThanItsBufferIsNotDecoded) {
  const auto decoder = stream::MakeDecoder();
  std::vector<std::byte> raw, out(4999);
  EXPECT_THAT(DecodeFrame(MakeFrame(stream::CodecKind::kZstd, 5000, raw), out, *decoder),
              StatusIs(absl::StatusCode::kDataLoss));
}

TEST(FrameTest, TheHeaderLiesAsDocumented) {
  std::array<std::byte, kFrameHeaderSize> bytes;
  EncodeFrameHeader(
      {stream::CodecKind::kLz4, 0x01020304 & 0xfffff, 0x0a0b, 0x1122334455667788, 0xcafebabe},
      bytes);
  EXPECT_EQ(std::memcmp(bytes.data(), "FRM1\x02\0\0\0", 8), 0);
  EXPECT_EQ(bytes[16], std::byte{0x88});
  EXPECT_EQ(bytes[24], std::byte{0xbe});
}

TEST(PackHeaderTest, SurvivesTheRoundTripAndNoBitFlip) {
  std::array<std::byte, kPackHeaderSize> bytes;
  const PackHeader header{7300000000000000001, 12, "20261122T021500Z-F"};
  EncodePackHeader(header, bytes);
  const auto decoded = DecodePackHeader(bytes);
  ASSERT_OK(decoded);
  EXPECT_EQ(*decoded, header);
  for (size_t at = 0; at < bytes.size(); ++at) {
    auto bad = bytes;
    bad[at] ^= std::byte{4};
    ASSERT_FALSE(DecodePackHeader(bad).ok()) << at;
  }
}

}  // namespace
}  // namespace metal::store
