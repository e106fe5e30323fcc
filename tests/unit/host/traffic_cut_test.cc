#include "agent/host/traffic_cut.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "agent/base/fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::host {
namespace {

using ::testing::HasSubstr;

// Runs the body in a process with a network of its own, so that nothing of this host's is touched.
// What the body answers: 0, or where it failed. −1: such a network cannot be made here.
int InNetworkOfItsOwn(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNET) != 0) _exit(255);
    const base::UniqueFd any(socket(AF_INET, SOCK_DGRAM, 0));
    ifreq loopback{};
    std::memcpy(loopback.ifr_name, "lo", sizeof "lo");
    loopback.ifr_flags = IFF_UP;
    if (ioctl(any.get(), SIOCSIFFLAGS, &loopback) != 0) _exit(255);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 254;
  return code == 255 ? -1 : code;
}

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

base::UniqueFd Listen(int port) {
  base::UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Loopback(port);
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener.get(), 8) != 0) {
    return {};
  }
  return listener;
}

// An open connection; not valid, with errno, when it is refused.
base::UniqueFd Connect(int port) {
  base::UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Loopback(port);
  if (connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return client;
  }
  const int error = errno;
  client.Reset();
  errno = error;
  return {};
}

bool IsRefused(int port) { return !Connect(port).valid() && errno == ECONNREFUSED; }

// An end on which the other one's error has arrived.
bool IsReset(const base::UniqueFd& end) {
  char byte;
  return recv(end.get(), &byte, 1, 0) < 0 && (errno == ECONNRESET || errno == ECONNABORTED);
}

bool StillTalks(const base::UniqueFd& from, const base::UniqueFd& to) {
  char byte = 'x';
  return send(from.get(), &byte, 1, MSG_NOSIGNAL) == 1 && recv(to.get(), &byte, 1, 0) == 1;
}

TEST(TrafficCutTest, EachPortHasATableOfItsOwn) {
  EXPECT_EQ(CutTableName(5433), "metal_5433");
  EXPECT_THAT(CutRules(5433), HasSubstr("table inet metal_5433 {"));
  EXPECT_THAT(CutRules(5433), HasSubstr("elements = { 5433 }"));
}

// 1 to 9: the step that went wrong; 100: nft or the kernel cannot.
int RefuseAndAllow() {
  const base::UniqueFd server = Listen(5433), other = Listen(5434);
  const base::UniqueFd open = Connect(5433);
  const base::UniqueFd accepted(accept(server.get(), nullptr, nullptr));
  const absl::Status refused = RefuseConnections(5433);
  if (absl::IsUnimplemented(refused)) return 100;
  if (!refused.ok() || !RefuseConnections(5433).ok()) return 1;
  if (!IsRefused(5433)) return 2;
  if (!Connect(5434).valid()) return 3;
  if (!StillTalks(open, accepted)) return 4;
  if (!RefuseConnections(5434).ok() || !AllowConnections(5433).ok()) return 5;
  if (!Connect(5433).valid()) return 6;
  if (!IsRefused(5434)) return 7;
  if (!AllowConnections(5433).ok() || !AllowConnections(5434).ok()) return 8;
  return Connect(5434).valid() ? 0 : 9;
}

TEST(TrafficCutTest, NewConnectionsToThePortAloneAreRefusedUntilTheyAreAllowed) {
  if (geteuid() != 0) GTEST_SKIP() << "not root";
  const int code = InNetworkOfItsOwn(RefuseAndAllow);
  if (code < 0) GTEST_SKIP() << "no network namespace of its own here";
  if (code == 100) GTEST_SKIP() << "no nftables here";
  EXPECT_EQ(code, 0);
}

TEST(TrafficCutTest, OneConnectionThatCannotBeDestroyedKeepsNoOtherFromIt) {
  const absl::Status unsupported = absl::UnimplementedError("no CONFIG_INET_DIAG_DESTROY");
  const absl::Status ended = absl::NotFoundError("it has ended");
  const auto each = [](const std::vector<absl::Status>& answers) {
    return DestroyEach(answers.size(), [&](size_t i) { return answers[i]; });
  };
  const absl::Status ok, other = absl::InternalError("no buffer"), later = absl::AbortedError("x");
  auto done = each({unsupported, ok, ended, ok});
  ASSERT_OK(done.status());
  EXPECT_EQ(done->count, 2);
  EXPECT_EQ(done->first_error, "") << "it was in TIME_WAIT";
  done = each({ok, other, later, ok});
  ASSERT_OK(done.status());
  EXPECT_EQ(done->count, 2);
  EXPECT_EQ(done->first_error, "no buffer");
  EXPECT_EQ(each({ended, ended})->count, 0);
  EXPECT_EQ(each({ended, other, later}).status(), other);
  EXPECT_EQ(each({unsupported, ended}).status(), unsupported) << "nothing shows that it can";
}

int DestroyAndSpare() {
  const base::UniqueFd server = Listen(5433), other = Listen(5434);
  const base::UniqueFd client = Connect(5433);
  const base::UniqueFd accepted(accept(server.get(), nullptr, nullptr));
  const std::set<uint32_t> walsender = SocketsOf(getpid());  // what is open until now
  const base::UniqueFd second = Connect(5433);
  const base::UniqueFd second_accepted(accept(server.get(), nullptr, nullptr));
  const base::UniqueFd bystander = Connect(5434);
  const base::UniqueFd bystander_accepted(accept(other.get(), nullptr, nullptr));
  const auto destroyed = DestroyConnections(5433, walsender);
  if (absl::IsUnimplemented(destroyed.status())) return 100;
  if (!destroyed.ok() || destroyed->count != 1) return 1;
  if (!IsReset(second) || !IsReset(second_accepted)) return 2;
  if (!StillTalks(client, accepted)) return 3;
  const auto rest = DestroyConnections(5433, {});
  if (!rest.ok() || rest->count != 1) return 4;
  if (!IsReset(client)) return 5;
  if (!StillTalks(bystander, bystander_accepted)) return 6;
  return Connect(5433).valid() ? 0 : 7;  // it still listens
}

TEST(TrafficCutTest, ConnectionsOfThePortEndAtBothEndsButThoseThatAreSpared) {
  if (geteuid() != 0) GTEST_SKIP() << "not root";
  const int code = InNetworkOfItsOwn(DestroyAndSpare);
  if (code < 0) GTEST_SKIP() << "no network namespace of its own here";
  if (code == 100) GTEST_SKIP() << "the kernel does not destroy connections";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace metal::host
