#include "agent/stream/codec.h"

#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::stream {
namespace {

using ::testing::HasSubstr;

constexpr size_t kFrame = 1 << 20;

enum class Content { kZeros, kText, kNoise };

std::vector<std::byte> Make(Content content, size_t size, uint64_t seed = 1) {
  std::vector<std::byte> bytes(size);
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < size; ++i) {
    switch (content) {
      case Content::kZeros:
        break;
      case Content::kText:
        bytes[i] = static_cast<std::byte>("metal postgres backup "[(i + random() % 3) % 22]);
        break;
      case Content::kNoise:
        bytes[i] = static_cast<std::byte>(random());
        break;
    }
  }
  return bytes;
}

std::vector<std::byte> Encode(Encoder& encoder, std::span<const std::byte> raw) {
  std::vector<std::byte> out(EncodedBound(raw.size()));
  const auto size = encoder.Encode(raw, out);
  EXPECT_TRUE(size.ok()) << size.status();
  out.resize(size.value_or(0));
  return out;
}

class CodecTest : public ::testing::TestWithParam<std::tuple<CodecKind, int>> {
 protected:
  void SetUp() override {
    auto encoder = MakeEncoder(kind(), std::get<1>(GetParam()));
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    encoder_ = *std::move(encoder);
    EXPECT_EQ(encoder_->kind(), kind());
  }
  CodecKind kind() const { return std::get<0>(GetParam()); }

  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Decoder> decoder_ = MakeDecoder();
};

TEST_P(CodecTest, EverySizeComesBack) {
  for (const Content content : {Content::kZeros, Content::kText, Content::kNoise}) {
    for (const size_t size :
         {0,    1,    2,    3,    5,    12,     13,     63,      64,      100,       255,
          4095, 4096, 8191, 8192, 8193, 65'535, 65'536, 131'072, 524'287, 1'048'575, 1'048'576}) {
      const auto raw = Make(content, size);
      const auto encoded = Encode(*encoder_, raw);
      EXPECT_LE(encoded.size(), EncodedBound(size));
      std::vector<std::byte> decoded(size, std::byte{0xAA});
      const absl::Status status = decoder_->Decode(kind(), encoded, decoded);
      ASSERT_TRUE(status.ok()) << size << ": " << status;
      ASSERT_EQ(decoded, raw) << size;
    }
  }
}

TEST_P(CodecTest, FramesDoNotDependOnEarlierFrames) {
  const auto first = Make(Content::kText, kFrame, 1);
  const auto second = Make(Content::kText, kFrame, 2);
  const auto alone = Encode(*encoder_, second);
  Encode(*encoder_, first);
  EXPECT_EQ(Encode(*encoder_, second), alone);
  std::vector<std::byte> decoded(kFrame);
  EXPECT_TRUE(MakeDecoder()->Decode(kind(), alone, decoded).ok());
  EXPECT_EQ(decoded, second);
}

TEST_P(CodecTest, WrongLengthIsDataLoss) {
  const auto raw = Make(Content::kText, 10'000);
  const auto encoded = Encode(*encoder_, raw);
  for (const size_t size : {0, 1, 9'999, 10'001, 20'000}) {
    std::vector<std::byte> decoded(size);
    EXPECT_EQ(decoder_->Decode(kind(), encoded, decoded).code(), absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST_P(CodecTest, TruncatedOrPaddedFrameIsDataLoss) {
  const auto raw = Make(Content::kText, 10'000);
  const auto encoded = Encode(*encoder_, raw);
  std::vector<std::byte> decoded(raw.size());
  for (size_t size = 0; size < encoded.size(); size += 1 + encoded.size() / 97) {
    const absl::Status status = decoder_->Decode(kind(), std::span(encoded).first(size), decoded);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << size;
  }
  auto padded = encoded;
  padded.resize(padded.size() + 5);
  EXPECT_EQ(decoder_->Decode(kind(), padded, decoded).code(), absl::StatusCode::kDataLoss);
  // And the decoder works on after damage.
  EXPECT_TRUE(decoder_->Decode(kind(), encoded, decoded).ok());
  EXPECT_EQ(decoded, raw);
}

// Damage may decode to other bytes (the frame's hash finds that), but never writes outside or
// reports success with another length. The guard bytes show the first, the sanitizer builds the
// rest.
TEST_P(CodecTest, DamagedBytesNeverEscapeTheBuffer) {
  const auto raw = Make(Content::kText, 50'000);
  const auto encoded = Encode(*encoder_, raw);
  std::mt19937_64 random(77);
  std::vector<std::byte> memory(raw.size() + 64, std::byte{0x5C});
  for (int round = 0; round < 500; ++round) {
    auto damaged = encoded;
    for (int i = 0; i < 1 + round % 4; ++i) {
      damaged[random() % damaged.size()] ^= static_cast<std::byte>(1 + random() % 255);
    }
    const absl::Status status =
        decoder_->Decode(kind(), damaged, std::span(memory).first(raw.size()));
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    }
    for (size_t i = raw.size(); i < memory.size(); ++i) ASSERT_EQ(memory[i], std::byte{0x5C});
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, CodecTest,
    ::testing::Values(std::tuple(CodecKind::kNone, 0), std::tuple(CodecKind::kZstd, -7),
                      std::tuple(CodecKind::kZstd, 1), std::tuple(CodecKind::kZstd, 3),
                      std::tuple(CodecKind::kZstd, 19), std::tuple(CodecKind::kLz4, 1),
                      std::tuple(CodecKind::kLz4, 2), std::tuple(CodecKind::kLz4, 3),
                      std::tuple(CodecKind::kLz4, 12)));

TEST(CodecChoiceTest, CompressibleDataShrinks) {
  const auto raw = Make(Content::kZeros, kFrame);
  for (const CodecKind kind : {CodecKind::kZstd, CodecKind::kLz4}) {
    auto encoder = MakeEncoder(kind, 1);
    ASSERT_TRUE(encoder.ok());
    EXPECT_LT(Encode(**encoder, raw).size(), kFrame / 100);
  }
}

TEST(CodecChoiceTest, LevelsOutsideTheRangeAreRefused) {
  for (const auto& [kind, level] :
       {std::pair(CodecKind::kZstd, -8), std::pair(CodecKind::kZstd, 20),
        std::pair(CodecKind::kLz4, 0), std::pair(CodecKind::kLz4, 13)}) {
    const auto encoder = MakeEncoder(kind, level);
    EXPECT_EQ(encoder.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(encoder.status().message()), HasSubstr("HINT"));
  }
  EXPECT_TRUE(MakeEncoder(CodecKind::kNone, 99).ok());
}

TEST(CodecChoiceTest, NamesComeBack) {
  for (const CodecKind kind : {CodecKind::kNone, CodecKind::kZstd, CodecKind::kLz4}) {
    EXPECT_EQ(ParseCodec(CodecName(kind)).value(), kind);
  }
  EXPECT_EQ(ParseCodec("gzip").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ParseCodec("gzip").status().message()), HasSubstr("zstd, lz4 or none"));
}

TEST(CodecChoiceTest, UnknownCodecNumberIsDataLoss) {
  const auto raw = Make(Content::kText, 100);
  std::vector<std::byte> decoded(100);
  EXPECT_EQ(MakeDecoder()->Decode(static_cast<CodecKind>(9), raw, decoded).code(),
            absl::StatusCode::kDataLoss);
}

TEST(CodecChoiceTest, DecoderSwitchesCodecsFromFrameToFrame) {
  const auto raw = Make(Content::kText, kFrame);
  auto decoder = MakeDecoder();
  for (int round = 0; round < 3; ++round) {
    for (const CodecKind kind : {CodecKind::kZstd, CodecKind::kLz4, CodecKind::kNone}) {
      const auto encoded = Encode(**MakeEncoder(kind, 1), raw);
      std::vector<std::byte> decoded(kFrame);
      ASSERT_TRUE(decoder->Decode(kind, encoded, decoded).ok());
      ASSERT_EQ(decoded, raw);
    }
  }
}

}  // namespace
}  // namespace metal::stream
