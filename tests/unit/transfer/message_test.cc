#include "agent/transfer/message.h"

#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"

namespace metal::transfer {
namespace {

using ::metal::testing::StatusIs;

const MessageHeader kHeader{9, 77, 1234, 1 << 20, 0xdeadbeef};

TEST(MessageTest, HeaderSurvivesTheWire) {
  ASSERT_OK_AND_ASSIGN(const MessageHeader decoded, DecodeHeader(EncodeHeader(kHeader)));
  EXPECT_EQ(decoded, kHeader);
}

TEST(MessageTest, EveryFlippedBitOfAHeaderIsSeen) {
  for (size_t bit = 0; bit < kMessageHeaderSize * 8; ++bit) {
    HeaderBytes bytes = EncodeHeader(kHeader);
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_THAT(DecodeHeader(bytes), StatusIs(absl::StatusCode::kDataLoss)) << bit;
  }
}

TEST(MessageTest, LengthsAreBounded) {
  MessageHeader header = kHeader;
  header.body_length = kBodyMax;
  header.payload_length = kPayloadMax;
  EXPECT_OK(DecodeHeader(EncodeHeader(header)));
  ++header.payload_length;
  EXPECT_THAT(DecodeHeader(EncodeHeader(header)), StatusIs(absl::StatusCode::kDataLoss));
  header = kHeader;
  header.body_length = kBodyMax + 1;
  EXPECT_THAT(DecodeHeader(EncodeHeader(header)), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(MessageTest, BodyIsChecked) {
  const std::string message = EncodeMessage(3, 5, "some fields");
  ASSERT_OK_AND_ASSIGN(const MessageHeader header,
                       DecodeHeader(std::as_bytes(std::span(message)).first<kMessageHeaderSize>()));
  EXPECT_EQ(header.type, 3);
  EXPECT_EQ(header.sequence, 5u);
  EXPECT_OK(CheckBody(header, message.substr(kMessageHeaderSize)));
  EXPECT_THAT(CheckBody(header, "some fieldz"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(CheckBody(header, "some field"), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(FieldsTest, ComeBackInOrder) {
  const std::string body = FieldWriter().U8(1).U32(2).U64(3).Text("four").Text("").Take();
  FieldReader in(body);
  EXPECT_EQ(in.U8(), 1);
  EXPECT_EQ(in.U32(), 2u);
  EXPECT_EQ(in.U64(), 3u);
  EXPECT_EQ(in.Text(4), "four");
  EXPECT_EQ(in.Text(4), "");
  EXPECT_OK(in.Done("test"));
}

TEST(FieldsTest, WhatIsCutOffOrLeftOverIsAnError) {
  const std::string body = FieldWriter().U32(2).Text("four").Take();
  for (size_t length = 0; length < body.size(); ++length) {
    FieldReader in(std::string_view(body).substr(0, length));
    in.U32();
    in.Text(10);
    EXPECT_THAT(in.Done("test"), StatusIs(absl::StatusCode::kDataLoss)) << length;
  }
  FieldReader too_long(body);
  too_long.U32();
  too_long.Text(3);
  EXPECT_FALSE(too_long.Done("test").ok());
  FieldReader left(body);
  left.U32();
  EXPECT_FALSE(left.Done("test").ok());
}

TEST(FieldsTest, CountIsNeverMoreThanCanBeThere) {
  const std::string body = FieldWriter().U32(3).U64(0).U64(0).Take();
  FieldReader fits(body);
  EXPECT_EQ(fits.Count(5), 3u);
  FieldReader lies(body);
  EXPECT_EQ(lies.Count(8), 0u);
  EXPECT_FALSE(lies.ok());
}

}  // namespace
}  // namespace metal::transfer
