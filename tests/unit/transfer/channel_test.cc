#include "agent/transfer/channel.h"

#include <csignal>

#include "agent/base/mutex.h"
#include "agent/transfer/listener.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/transfer/test_certificates.h"

namespace metal::transfer {
namespace {

using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(30);

TEST(AddressTest, NamesAndAddresses) {
  ASSERT_OK_AND_ASSIGN(const Address name, Address::Parse("node-b:7422"));
  EXPECT_EQ(name.host, "node-b");
  EXPECT_EQ(name.port, "7422");
  ASSERT_OK_AND_ASSIGN(const Address six, Address::Parse("[fe80::1]:7422"));
  EXPECT_EQ(six.host, "fe80::1");
  EXPECT_EQ(six.ToString(), "[fe80::1]:7422");
  for (const char* bad : {"", "node", ":1", "node:", "node:0", "node:65536", "a b:1", "a:b:1",
                          "node:1x", "http://node:1"}) {
    EXPECT_THAT(Address::Parse(bad), StatusIs(absl::StatusCode::kInvalidArgument)) << bad;
  }
}

// A listener that sends every message back, with its payload.
class ChannelTest : public ::testing::Test {
 protected:
  ChannelTest() { std::signal(SIGPIPE, SIG_IGN); }

  void Serve(const TlsFiles& tls) {
    auto listener = Listener::Start({.listen = "127.0.0.1:0", .tls = tls, .serve = Echo});
    ASSERT_OK(listener);
    listener_ = *std::move(listener);
    address_ = *Address::Parse(listener_->address());
  }
  static void Echo(Channel& channel) {
    while (true) {
      const auto received = channel.ReadMessage();
      if (!received.ok()) return;
      std::vector<std::byte> payload(received->header.payload_length);
      if (!channel.Read(payload).ok()) return;
      std::string body = received->body;
      if (body == "names") body = fmt::format("{}", fmt::join(channel.names(), ","));
      if (!channel.WriteMessage(received->header.type, received->header.sequence, body, payload)
               .ok()) {
        return;
      }
    }
  }
  void ExpectEcho(Channel& channel) {
    std::vector<std::byte> payload(kPayloadMax);
    for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::byte>(i * 7);
    ASSERT_OK(channel.WriteMessage(4, 9, "body", payload));
    ASSERT_OK_AND_ASSIGN(const auto received, channel.ReadMessage());
    EXPECT_EQ(received.body, "body");
    EXPECT_EQ(received.header.sequence, 9u);
    std::vector<std::byte> back(received.header.payload_length);
    ASSERT_OK(channel.Read(back));
    EXPECT_TRUE(back == payload);
  }

  testing::TempDir dir_;
  std::unique_ptr<Listener> listener_;
  Address address_;
};

TEST_F(ChannelTest, CarriesMessagesWithoutTls) {
  Serve({});
  ASSERT_OK_AND_ASSIGN(const auto channel, Channel::Connect(address_, {}, kPatience));
  EXPECT_FALSE(channel->secure());
  for (int i = 0; i < 3; ++i) ExpectEcho(*channel);
}

TEST_F(ChannelTest, CarriesMessagesWithTlsAndNamesTheCaller) {
  TestAuthority authority(dir_);
  Serve(authority.Issue("server", "DNS:localhost,IP:127.0.0.1"));
  const TlsFiles caller = authority.Issue("caller", "DNS:node-a.test,URI:spiffe://metal/a");
  ASSERT_OK_AND_ASSIGN(const auto channel, Channel::Connect(address_, caller, kPatience));
  EXPECT_TRUE(channel->secure());
  EXPECT_THAT(channel->names(), ElementsAre("localhost"));
  for (int i = 0; i < 3; ++i) ExpectEcho(*channel);
  ASSERT_OK(channel->WriteMessage(1, 0, "names"));
  ASSERT_OK_AND_ASSIGN(const auto received, channel->ReadMessage());
  EXPECT_EQ(received.body, "node-a.test,spiffe://metal/a");
}

TEST_F(ChannelTest, CertificateOfAnotherAuthorityIsRefused) {
  TestAuthority authority(dir_), foreign(dir_, "foreign");
  Serve(authority.Issue("server", "IP:127.0.0.1"));
  TlsFiles caller = foreign.Issue("caller", "DNS:node-a.test");
  // Does not trust the server's.
  EXPECT_THAT(Channel::Connect(address_, caller, kPatience),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("HINT: ")));
  // Trusts it, and is not trusted: in TLS 1.3 that shows when something is read.
  caller.authority = dir_.File("ca.pem");
  auto channel = Channel::Connect(address_, caller, kPatience);
  if (channel.ok()) {
    EXPECT_FALSE((*channel)->ReadMessage().ok());
  }
}

TEST_F(ChannelTest, ServerMustBeWhoWasCalled) {
  TestAuthority authority(dir_);
  Serve(authority.Issue("server", "DNS:elsewhere.test"));
  EXPECT_THAT(Channel::Connect(address_, authority.Issue("caller", "DNS:a.test"), kPatience),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("mismatch")));
}

TEST_F(ChannelTest, PlainCallerIsRefusedByATlsListener) {
  TestAuthority authority(dir_);
  Serve(authority.Issue("server", "IP:127.0.0.1"));
  ASSERT_OK_AND_ASSIGN(const auto channel, Channel::Connect(address_, {}, kPatience));
  ASSERT_OK(channel->WriteMessage(1, 0, "hello"));
  EXPECT_FALSE(channel->ReadMessage().ok());
}

TEST_F(ChannelTest, MissingFileIsNamed) {
  TestAuthority authority(dir_);
  Serve(authority.Issue("server", "IP:127.0.0.1"));
  TlsFiles caller = authority.Issue("caller", "DNS:a.test");
  caller.key = "/nowhere/key.pem";
  EXPECT_THAT(Channel::Connect(address_, caller, kPatience),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("/nowhere/key.pem")));
}

TEST_F(ChannelTest, NobodyListens) {
  Serve({});
  listener_.reset();
  EXPECT_THAT(Channel::Connect(address_, {}, kPatience),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(address_.ToString())));
}

TEST_F(ChannelTest, InterruptEndsAWait) {
  Serve({});
  ASSERT_OK_AND_ASSIGN(const auto channel, Channel::Connect(address_, {}, kPatience));
  base::Thread other("interrupt", [&] { channel->Interrupt(); });
  EXPECT_THAT(channel->ReadMessage(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ChannelTest, StopEndsConnectionsThatWait) {
  Serve({});
  ASSERT_OK_AND_ASSIGN(const auto channel, Channel::Connect(address_, {}, kPatience));
  ASSERT_OK(channel->WriteMessage(1, 0, "x"));
  ASSERT_OK(channel->ReadMessage());
  listener_->Stop();
  EXPECT_FALSE(channel->ReadMessage().ok());
}

TEST(ListenerTest, AddressInUseIsRefused) {
  ListenerOptions options{.listen = "127.0.0.1:0", .serve = [](Channel&) {}};
  ASSERT_OK_AND_ASSIGN(const auto first, Listener::Start(options));
  options.listen = first->address();
  EXPECT_THAT(Listener::Start(options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("transfer.listen")));
}

}  // namespace
}  // namespace metal::transfer
