#include "agent/backup/wal_protocol.h"

#include "gmock/gmock.h"

namespace metal::backup {
namespace {

std::string_view BodyOf(std::string_view message) { return message.substr(kWalLengthBytes); }

const WalRequest kRequest{WalOperation::kFetch, 7300000000000000001, "000000010000000000000001"};
const WalResponse kResponse{.outcome = WalOutcome::kTryAgain,
                            .already_present = true,
                            .prefetched = false,
                            .raw_bytes = 16 << 20,
                            .stored_bytes = 12345,
                            .message = "the agent is busy"};

TEST(WalProtocolTest, RequestSurvivesTheWire) {
  const std::string message = EncodeWalRequest(kRequest);
  EXPECT_EQ(DecodeWalLength(std::string_view(message).substr(0, kWalLengthBytes)),
            message.size() - kWalLengthBytes);
  const auto decoded = DecodeWalRequest(BodyOf(message));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->operation, kRequest.operation);
  EXPECT_EQ(decoded->system_identifier, kRequest.system_identifier);
  EXPECT_EQ(decoded->name, kRequest.name);
}

TEST(WalProtocolTest, ResponseSurvivesTheWire) {
  const std::string message = EncodeWalResponse(kResponse);
  EXPECT_EQ(DecodeWalLength(std::string_view(message).substr(0, kWalLengthBytes)),
            message.size() - kWalLengthBytes);
  const auto decoded = DecodeWalResponse(BodyOf(message));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->outcome, kResponse.outcome);
  EXPECT_TRUE(decoded->already_present);
  EXPECT_EQ(decoded->raw_bytes, kResponse.raw_bytes);
  EXPECT_EQ(decoded->stored_bytes, kResponse.stored_bytes);
  EXPECT_EQ(decoded->message, kResponse.message);
}

TEST(WalProtocolTest, BodyOfEveryOtherLengthIsRejected) {
  const std::string request = EncodeWalRequest(kRequest), response = EncodeWalResponse(kResponse);
  for (size_t length = 0; length < request.size() - kWalLengthBytes; ++length) {
    EXPECT_FALSE(DecodeWalRequest(BodyOf(request).substr(0, length))) << length;
  }
  for (size_t length = 0; length < response.size() - kWalLengthBytes; ++length) {
    EXPECT_FALSE(DecodeWalResponse(BodyOf(response).substr(0, length))) << length;
  }
  EXPECT_FALSE(DecodeWalRequest(std::string(BodyOf(request)) + "x"));
  EXPECT_FALSE(DecodeWalResponse(std::string(BodyOf(response)) + "x"));
}

TEST(WalProtocolTest, UnknownValuesAreRejected) {
  std::string request(BodyOf(EncodeWalRequest(kRequest)));
  request[0] = 2;
  EXPECT_FALSE(DecodeWalRequest(request)) << "version";
  request[0] = 1;
  request[1] = 0;
  EXPECT_FALSE(DecodeWalRequest(request)) << "operation";
  request[1] = 3;
  EXPECT_FALSE(DecodeWalRequest(request)) << "operation";
  std::string response(BodyOf(EncodeWalResponse(kResponse)));
  response[1] = 4;
  EXPECT_FALSE(DecodeWalResponse(response)) << "outcome";
  response[1] = 0;
  response[2] = 2;
  EXPECT_FALSE(DecodeWalResponse(response)) << "flag";
  response[2] = 0;
  response[3] = 2;
  EXPECT_FALSE(DecodeWalResponse(response)) << "flag";
  response[3] = 1;
  EXPECT_TRUE(DecodeWalResponse(response)->prefetched);
}

TEST(WalProtocolTest, LengthsAreBounded) {
  EXPECT_FALSE(DecodeWalLength(std::string_view("\0\0\0\0", 4)));
  EXPECT_FALSE(DecodeWalLength(std::string_view("\x01\x10\0\0", 4))) << kMaxWalBody + 1;
  EXPECT_FALSE(DecodeWalLength("\xff\xff\xff\xff"));
  EXPECT_FALSE(DecodeWalLength("\1"));
  EXPECT_EQ(DecodeWalLength(std::string_view("\0\x10\0\0", 4)), kMaxWalBody);
}

TEST(WalProtocolTest, NameOfNoLengthIsRejected) {
  WalRequest request = kRequest;
  request.name = "";
  EXPECT_FALSE(DecodeWalRequest(BodyOf(EncodeWalRequest(request))));
  request.name = std::string(kMaxWalRequestName, 'x');
  EXPECT_TRUE(DecodeWalRequest(BodyOf(EncodeWalRequest(request))));
  request.name += 'x';
  EXPECT_FALSE(DecodeWalRequest(BodyOf(EncodeWalRequest(request))));
}

TEST(WalProtocolTest, LongMessageIsCutToFit) {
  WalResponse response = kResponse;
  response.message = std::string(3 * kMaxWalBody, 'x');
  const std::string message = EncodeWalResponse(response);
  EXPECT_EQ(message.size(), kWalLengthBytes + kMaxWalBody);
  const auto decoded = DecodeWalResponse(BodyOf(message));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->message.size(), kMaxWalBody - 24);
}

}  // namespace
}  // namespace metal::backup
