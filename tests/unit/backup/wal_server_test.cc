#include "agent/backup/wal_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "agent/backup/wal_protocol.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

using absl::StatusCode;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Changes the calling thread's effective user; seteuid would change the server's threads too.
int BecomeUser(uid_t user) { return static_cast<int>(syscall(SYS_setresuid, -1, user, -1)); }

// A client that may misbehave.
class Client {
 public:
  explicit Client(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    connected_ = connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  bool connected() const { return connected_; }

  void Send(std::string_view bytes, const std::vector<int>& descriptors = {}) {
    alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))] = {};
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!descriptors.empty()) {
      const size_t size = descriptors.size() * sizeof(int);
      header.msg_control = control;
      header.msg_controllen = CMSG_SPACE(size);
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(size);
      std::memcpy(CMSG_DATA(rights), descriptors.data(), size);
    }
    const ssize_t sent = sendmsg(fd_.get(), &header, MSG_NOSIGNAL);
    // A server that turns us away answers without listening.
    EXPECT_TRUE(sent == static_cast<ssize_t>(bytes.size()) || (sent < 0 && errno == EPIPE))
        << strerror(errno);
  }

  // nullopt when the server closes without an answer. A file that comes along goes to `file`.
  std::optional<WalResponse> Receive(base::UniqueFd* file = nullptr) {
    std::string bytes;
    char buffer[kMaxWalBody];
    while (true) {
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
      iovec part{buffer, sizeof buffer};
      msghdr header{};
      header.msg_iov = &part;
      header.msg_iovlen = 1;
      header.msg_control = control;
      header.msg_controllen = sizeof control;
      const ssize_t n = recvmsg(fd_.get(), &header, MSG_CMSG_CLOEXEC);
      if (n <= 0) break;
      bytes.append(buffer, static_cast<size_t>(n));
      if (const cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
        base::UniqueFd received(fd);
        if (file != nullptr) *file = std::move(received);
      }
    }
    if (bytes.size() < kWalLengthBytes) return std::nullopt;
    return DecodeWalResponse(std::string_view(bytes).substr(kWalLengthBytes));
  }
  void Close() { fd_.Reset(); }

 private:
  base::UniqueFd fd_;
  bool connected_ = false;
};

class WalServerTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(archive_->Prepare()); }

  void StartServer(WalServerOptions options = {}) {
    options.socket_path = socket_;
    auto server = WalServer::Start(std::move(options), archive_, base::RealClock());
    ASSERT_OK(server.status());
    server_ = *std::move(server);
  }
  base::UniqueFd Open(const std::string& path, int flags) {
    auto fd = base::OpenFile(path, flags);
    EXPECT_OK(fd.status());
    return fd.ok() ? *std::move(fd) : base::UniqueFd();
  }
  WalResponse Ask(const WalRequest& request, int fd) {
    Client client(socket_);
    client.Send(EncodeWalRequest(request), {fd});
    return client.Receive().value_or(WalResponse{.message = "no answer"});
  }
  WalResponse Push(const TestSegment& segment, uint64_t system = kTestSystem) {
    const base::UniqueFd fd =
        Open(directory_.Write("segment-" + segment.Name(), segment.Bytes()), O_RDONLY);
    return Ask({WalOperation::kPush, system, segment.Name()}, fd.get());
  }
  WalResponse Fetch(const std::string& name, const std::string& path,
                    uint64_t system = kTestSystem) {
    const base::UniqueFd fd = Open(path, O_WRONLY);
    return Ask({WalOperation::kFetch, system, name}, fd.get());
  }

  testing::TempDir directory_;
  const std::string repository_ = directory_.File("repository");
  const std::string socket_ = directory_.File("run/wal.sock");
  metal::testing::RecordedEvents events_;
  std::shared_ptr<WalArchive> archive_ = std::make_shared<WalArchive>(
      WalArchiveOptions{.repository_path = repository_}, base::RealClock(), &events_);
  std::unique_ptr<WalServer> server_;
};

TEST_F(WalServerTest, PushedSegmentIsFetched) {
  StartServer();
  const TestSegment segment;
  const WalResponse pushed = Push(segment);
  EXPECT_EQ(pushed.outcome, WalOutcome::kOk) << pushed.message;
  EXPECT_EQ(pushed.raw_bytes, kTestSegmentSize);
  EXPECT_FALSE(pushed.already_present);
  EXPECT_TRUE(Push(segment).already_present);
  const std::string target = directory_.Write("target", "");
  const WalResponse fetched = Fetch(segment.Name(), target);
  EXPECT_EQ(fetched.outcome, WalOutcome::kOk) << fetched.message;
  EXPECT_EQ(fetched.raw_bytes, kTestSegmentSize);
  EXPECT_TRUE(*base::ReadFile(target) == segment.Bytes());
}

TEST_F(WalServerTest, AbsentFileIsNotFound) {
  StartServer();
  EXPECT_EQ(Fetch("000000010000000000000009", directory_.Write("target", "")).outcome,
            WalOutcome::kNotFound);
}

TEST_F(WalServerTest, RefusalsSayWhy) {
  StartServer();
  EXPECT_EQ(Push({}).outcome, WalOutcome::kOk);
  const WalResponse conflict = Push({.seed = 2});
  EXPECT_EQ(conflict.outcome, WalOutcome::kFailed);
  EXPECT_THAT(conflict.message, HasSubstr("HINT"));
  const WalResponse foreign =
      Push({.start = base::Lsn{2 * kTestSegmentSize}, .system_identifier = 42});
  EXPECT_EQ(foreign.outcome, WalOutcome::kFailed);
  EXPECT_THAT(foreign.message, HasSubstr("foreign cluster 42"));
  const base::UniqueFd fd = Open(directory_.Write("x", "x"), O_RDONLY);
  EXPECT_EQ(Ask({WalOperation::kPush, kTestSystem, "../../x"}, fd.get()).outcome,
            WalOutcome::kFailed);
}

TEST_F(WalServerTest, PushOfAnotherClusterThanTheNodesIsRefused) {
  StartServer({.current_system_identifier = [] { return kTestSystem; }});
  EXPECT_EQ(Push({.system_identifier = 42}, 42).outcome, WalOutcome::kFailed);
  EXPECT_EQ(Push({.system_identifier = 42}, 0).outcome, WalOutcome::kFailed);
  EXPECT_EQ(Push({}, 0).outcome, WalOutcome::kOk);
}

TEST_F(WalServerTest, MissingRepositoryMeansTryAgain) {
  StartServer();
  ASSERT_EQ(rename(repository_.c_str(), directory_.File("moved").c_str()), 0);
  EXPECT_EQ(Push({}).outcome, WalOutcome::kTryAgain);
  EXPECT_EQ(Fetch(TestSegment{}.Name(), directory_.Write("target", "")).outcome,
            WalOutcome::kTryAgain);
}

TEST_F(WalServerTest, OnlyEmptyWritableFilesAreFilled) {
  StartServer();
  ASSERT_EQ(Push({}).outcome, WalOutcome::kOk);
  const std::string precious = directory_.Write("precious", "data");
  EXPECT_EQ(Fetch(TestSegment{}.Name(), precious).outcome, WalOutcome::kFailed);
  EXPECT_EQ(*base::ReadFile(precious), "data");
  const base::UniqueFd read_only = Open(directory_.Write("target", ""), O_RDONLY);
  EXPECT_EQ(Ask({WalOperation::kFetch, kTestSystem, TestSegment{}.Name()}, read_only.get()).outcome,
            WalOutcome::kFailed);
}

TEST_F(WalServerTest, RecoveryGetsTheNextSegmentsDecodedAhead) {
  StartServer();
  constexpr uint64_t kSegments = 6;
  for (uint64_t number = 1; number <= kSegments; ++number) {
    ASSERT_EQ(Push({.start = base::Lsn{number * kTestSegmentSize}}).outcome, WalOutcome::kOk);
  }
  for (uint64_t number = 1; number <= kSegments; ++number) {
    const TestSegment segment{.start = base::Lsn{number * kTestSegmentSize}};
    // A recovery takes its time; here until the agent is ahead of it.
    const uint64_t ahead = number == 1 ? 0 : std::min(kSegments, number + 1);
    while (archive_->Statistics().fetched < ahead) std::this_thread::yield();
    std::vector<base::UniqueFd> files;
    std::vector<int> descriptors;
    for (int i = 0; i < 3; ++i) {
      files.emplace_back(open(directory_.path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
      descriptors.push_back(files.back().get());
    }
    Client client(socket_);
    client.Send(EncodeWalRequest({WalOperation::kFetch, kTestSystem, segment.Name()}), descriptors);
    base::UniqueFd file;
    const auto response = client.Receive(&file);
    ASSERT_TRUE(response);
    EXPECT_EQ(response->outcome, WalOutcome::kOk);
    EXPECT_EQ(response->prefetched, number > 1) << number;
    EXPECT_EQ(response->prefetched, file.valid());
    std::string bytes(kTestSegmentSize + 1, '\0');
    EXPECT_EQ(pread(file.valid() ? file.get() : descriptors[0], bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(kTestSegmentSize));
    bytes.pop_back();
    EXPECT_TRUE(bytes == segment.Bytes()) << number;
  }
  EXPECT_EQ(server_->Statistics().prefetched, kSegments - 1);
}

TEST_F(WalServerTest, SparesThatAreNotEmptyFilesAreNeverWritten) {
  StartServer();
  for (uint64_t number = 1; number <= 2; ++number) {
    ASSERT_EQ(Push({.start = base::Lsn{number * kTestSegmentSize}}).outcome, WalOutcome::kOk);
  }
  const std::string precious = directory_.Write("precious", "data");
  const base::UniqueFd target = Open(directory_.Write("target", ""), O_WRONLY),
                       spare = Open(precious, O_WRONLY);
  Client client(socket_);
  client.Send(EncodeWalRequest({WalOperation::kFetch, kTestSystem, TestSegment{}.Name()}),
              {target.get(), spare.get()});
  EXPECT_EQ(client.Receive()->outcome, WalOutcome::kOk);
  EXPECT_TRUE(server_->Stop(absl::Seconds(30)));
  EXPECT_EQ(*base::ReadFile(precious), "data");
}

TEST_F(WalServerTest, BadRequestsAreAnsweredAndDoNoHarm) {
  StartServer({.io_timeout = absl::Milliseconds(200)});
  const base::UniqueFd file = Open(directory_.Write("file", "x"), O_RDONLY);
  const std::string good =
      EncodeWalRequest({WalOperation::kPush, kTestSystem, TestSegment{}.Name()});
  const auto answer_to = [&](std::string_view bytes, const std::vector<int>& descriptors) {
    Client client(socket_);
    client.Send(bytes, descriptors);
    return client.Receive();
  };
  for (const auto& response :
       {answer_to(good, {}), answer_to(good, {file.get(), file.get()}),
        answer_to(good, std::vector<int>(16, file.get())),
        answer_to(std::string_view("\xff\xff\xff\xff", 4), {}),
        answer_to(std::string_view("\0\0\0\0", 4), {}), answer_to("GET / HTTP/1.1\r\n\r\n", {}),
        answer_to(good.substr(0, 10), {file.get()}), answer_to(good.substr(0, 2), {file.get()})}) {
    ASSERT_TRUE(response);
    EXPECT_EQ(response->outcome, WalOutcome::kFailed);
    EXPECT_FALSE(response->message.empty());
  }
  Client silent(socket_), gone(socket_);
  gone.Close();
  EXPECT_EQ(Push({}).outcome, WalOutcome::kOk);
  EXPECT_EQ(silent.Receive()->outcome, WalOutcome::kFailed);
}

TEST_F(WalServerTest, RequestInPiecesIsUnderstood) {
  StartServer();
  const base::UniqueFd file = Open(directory_.Write("segment", TestSegment{}.Bytes()), O_RDONLY);
  const std::string request =
      EncodeWalRequest({WalOperation::kPush, kTestSystem, TestSegment{}.Name()});
  Client client(socket_);
  for (size_t i = 0; i + 1 < request.size(); ++i)
    client.Send(std::string_view(request).substr(i, 1));
  client.Send(std::string_view(request).substr(request.size() - 1), {file.get()});
  EXPECT_EQ(client.Receive()->outcome, WalOutcome::kOk);
}

TEST_F(WalServerTest, SocketIsForThisUserAlone) {
  StartServer();
  struct stat status;
  ASSERT_EQ(stat(socket_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  ASSERT_EQ(stat(directory_.File("run").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  ASSERT_EQ(chmod(directory_.path().c_str(), 0755), 0);
  ASSERT_EQ(chmod(directory_.File("run").c_str(), 0755), 0);
  ASSERT_EQ(chmod(socket_.c_str(), 0666), 0);
  ASSERT_EQ(BecomeUser(65534), 0);
  Client stranger(socket_);
  ASSERT_EQ(BecomeUser(0), 0);
  ASSERT_TRUE(stranger.connected());
  const auto response = stranger.Receive();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->outcome, WalOutcome::kFailed);
  EXPECT_THAT(response->message, HasSubstr("user"));
  EXPECT_EQ(server_->Statistics().refused_users, 1u);
}

TEST_F(WalServerTest, AllowedUserIsServed) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  StartServer({.allowed_users = {65534}});
  ASSERT_EQ(chmod(directory_.path().c_str(), 0755), 0);
  ASSERT_EQ(chmod(directory_.File("run").c_str(), 0755), 0);
  ASSERT_EQ(chmod(socket_.c_str(), 0666), 0);
  const base::UniqueFd file = Open(directory_.Write("segment", TestSegment{}.Bytes()), O_RDONLY);
  ASSERT_EQ(BecomeUser(65534), 0);
  const WalResponse response =
      Ask({WalOperation::kPush, kTestSystem, TestSegment{}.Name()}, file.get());
  ASSERT_EQ(BecomeUser(0), 0);
  EXPECT_EQ(response.outcome, WalOutcome::kOk) << response.message;
}

TEST_F(WalServerTest, SecondServerIsRefusedAndStaleSocketReplaced) {
  StartServer();
  EXPECT_THAT(WalServer::Start({.socket_path = socket_}, archive_, base::RealClock()).status(),
              StatusIs(StatusCode::kAlreadyExists));
  server_.reset();
  EXPECT_FALSE(base::PathExists(socket_));
  {
    const base::UniqueFd stale(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(bind(stale.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ASSERT_TRUE(base::PathExists(socket_));
  StartServer();
  EXPECT_EQ(Push({}).outcome, WalOutcome::kOk);
}

TEST_F(WalServerTest, BadSocketPlacesAreRefused) {
  const auto start = [&](const std::string& path) {
    return WalServer::Start({.socket_path = path}, archive_, base::RealClock()).status();
  };
  EXPECT_THAT(start(""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(start(directory_.File(std::string(200, 'x'))),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(start(directory_.Write("a-file", "data")), StatusIs(StatusCode::kFailedPrecondition));
  ASSERT_OK(base::MakeDirectories(directory_.File("open")));
  ASSERT_EQ(chmod(directory_.File("open").c_str(), 0777), 0);
  EXPECT_THAT(start(directory_.File("open/wal.sock")), StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(WalServerTest, ManyClientsAtOnceAreServedOrTurnedAway) {
  StartServer({.workers = 4});
  std::atomic<int> served{0}, turned_away{0};
  {
    std::vector<base::Thread> clients;
    for (unsigned i = 0; i < 12; ++i) {
      clients.emplace_back("client", [&, i] {
        for (unsigned n = 1; n <= 4; ++n) {
          const WalResponse response = Push({.start = base::Lsn{(i * 4 + n) * kTestSegmentSize}});
          EXPECT_TRUE(response.outcome == WalOutcome::kOk ||
                      response.outcome == WalOutcome::kTryAgain)
              << response.message;
          ++(response.outcome == WalOutcome::kOk ? served : turned_away);
        }
      });
    }
  }
  EXPECT_EQ(served + turned_away, 48);
  EXPECT_EQ(archive_->Statistics().pushed, static_cast<uint64_t>(served));
  EXPECT_EQ(server_->Statistics().turned_away, static_cast<uint64_t>(turned_away));
  EXPECT_GE(served, 4);
}

// A repository whose disk hangs: opening its marker file, a FIFO here, blocks until Release.
class HungWalServerTest : public WalServerTest {
 protected:
  void SetUp() override {
    WalServerTest::SetUp();
    ASSERT_EQ(rename(marker_.c_str(), directory_.File("marker").c_str()), 0);
    ASSERT_EQ(mkfifo(marker_.c_str(), 0600), 0);
  }
  // Lets go of everyone who hangs, again and again until `done`.
  template <typename Done>
  void ReleaseUntil(Done done) {
    while (!done()) {
      const base::UniqueFd writer(open(marker_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
      std::this_thread::yield();
    }
  }
  // A request that is at work and hangs.
  std::unique_ptr<Client> HangingPush(int busy_after) {
    const TestSegment segment{.start =
                                  base::Lsn{static_cast<uint64_t>(busy_after) * kTestSegmentSize}};
    const base::UniqueFd fd = Open(directory_.Write("segment", segment.Bytes()), O_RDONLY);
    auto client = std::make_unique<Client>(socket_);
    client->Send(EncodeWalRequest({WalOperation::kPush, kTestSystem, segment.Name()}), {fd.get()});
    while (at_work_ < busy_after) std::this_thread::yield();
    return client;
  }
  // The server asks for this right before it turns to the archive.
  WalServerOptions Options() {
    return {.workers = 2, .current_system_identifier = [this] {
              ++at_work_;
              return kTestSystem;
            }};
  }
  std::atomic<int> at_work_{0};
  const std::string marker_ = repository_ + "/metal-repository";
};

TEST_F(HungWalServerTest, NextClientIsToldToTryAgainAtOnce) {
  StartServer(Options());
  const auto first = HangingPush(1);
  const auto second = HangingPush(2);
  const WalResponse third = Push({.start = base::Lsn{3 * kTestSegmentSize}});
  EXPECT_EQ(third.outcome, WalOutcome::kTryAgain);
  EXPECT_THAT(third.message, HasSubstr("busy"));
  const WalServerStatistics statistics = server_->Statistics();
  EXPECT_EQ(statistics.busy, 2);
  EXPECT_EQ(statistics.workers, 2);
  EXPECT_GT(statistics.longest_busy, absl::ZeroDuration());
  EXPECT_EQ(archive_->Statistics().pushed, 0u) << "the statistics must not hang";
  ReleaseUntil([&] { return server_->Statistics().busy == 0; });
  EXPECT_EQ(first->Receive()->outcome, WalOutcome::kFailed);
  EXPECT_EQ(second->Receive()->outcome, WalOutcome::kFailed);
}

TEST_F(HungWalServerTest, StopLeavesAHungThreadBehind) {
  StartServer(Options());
  const auto client = HangingPush(1);
  EXPECT_FALSE(server_->Stop(absl::Milliseconds(50)));
  server_.reset();
  std::weak_ptr<WalArchive> archive = archive_;
  archive_.reset();
  EXPECT_FALSE(archive.expired()) << "the hung thread still needs it";
  ReleaseUntil([&] { return archive.expired(); });
  EXPECT_THAT(events_.types(), IsEmpty()) << "the event log may be gone by then";
}

TEST_F(WalServerTest, StopWithNothingToDoIsQuick) {
  StartServer();
  Client silent(socket_);
  const base::MonotonicTime start = base::RealClock().Monotonic();
  EXPECT_TRUE(server_->Stop(absl::Seconds(30)));
  EXPECT_LT(base::RealClock().Monotonic() - start, absl::Seconds(10));
}

}  // namespace
}  // namespace metal::backup
