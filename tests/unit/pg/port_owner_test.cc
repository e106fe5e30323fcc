#include "agent/pg/port_owner.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/fd.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ProcNetTcpTest, ListenersAreDecoded) {
  const std::vector<TcpListener> listeners = ParseProcNetTcp(
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
      "inode\n"
      "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101 0 55 1\n"
      "   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 66 1\n"
      "   2: 0100007F:1538 0100007F:9C40 01 00000000:00000000 00:00000000 00000000   101 0 77 1\n"
      "   3: 00000000000000000000000001000000:1538 00000000000000000000000000000000:0000 0A "
      "00000000:00000000 00:00000000 00000000 101 0 88 1\n"
      "   4: broken\n");
  ASSERT_EQ(listeners.size(), 3u);
  EXPECT_EQ(listeners[0].address, "127.0.0.1");
  EXPECT_EQ(listeners[0].port, 5432);
  EXPECT_EQ(listeners[0].inode, 55u);
  EXPECT_EQ(listeners[1].address, "0.0.0.0");
  EXPECT_EQ(listeners[2].address, "::1");
}

TEST(ListenAddressesTest, OverlapIsDecidedByAddress) {
  EXPECT_TRUE(ListenAddressesOverlap("*", "10.0.0.1"));
  EXPECT_TRUE(ListenAddressesOverlap("127.0.0.1", "127.0.0.1"));
  EXPECT_TRUE(ListenAddressesOverlap("127.0.0.1", "0.0.0.0"));
  EXPECT_TRUE(ListenAddressesOverlap("localhost, 10.0.0.1", "127.0.0.1"));
  EXPECT_TRUE(ListenAddressesOverlap("0.0.0.0", "10.0.0.1"));
  EXPECT_FALSE(ListenAddressesOverlap("127.0.0.1", "10.0.0.1"));
  EXPECT_FALSE(ListenAddressesOverlap("", "0.0.0.0"));
}

class PortTest : public ::testing::Test {
 protected:
  void SetUp() override {
    socket_ = base::UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(listen(socket_.get(), 1), 0);
    socklen_t size = sizeof address;
    ASSERT_EQ(getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  base::UniqueFd socket_;
  int port_ = 0;
  testing::TempDir dir_;
};

TEST_F(PortTest, TheHolderIsNamed) {
  const auto owner = FindPortOwner(port_, "127.0.0.1");
  ASSERT_TRUE(owner.has_value());
  EXPECT_EQ(owner->pid, getpid());
  const absl::Status busy = CheckPortFree(port_, "127.0.0.1", dir_.path());
  EXPECT_THAT(busy, StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("process " + std::to_string(getpid()))));
  EXPECT_EQ(base::GetReason(busy)->reason, "PORT_IN_USE");
  EXPECT_OK(CheckPortFree(port_, "", dir_.path()));
  socket_.Reset();
  EXPECT_OK(CheckPortFree(port_, "127.0.0.1", dir_.path()));
}

TEST_F(PortTest, AMissingSocketDirectoryIsNamed) {
  EXPECT_THAT(CheckPortFree(port_, "", dir_.File("none")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(dir_.File("none"))));
}

TEST_F(PortTest, AStaleSocketLockOfAnotherProgramDoesNotHoldThePort) {
  dir_.Write(".s.PGSQL." + std::to_string(port_) + ".lock", "1\n/other\n");
  EXPECT_OK(CheckPortFree(port_, "", dir_.path()));
}

}  // namespace
}  // namespace metal::pg
