#include "tools/metal-wal/transfer.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "agent/backup/wal_server.h"
#include "agent/base/file.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::wal {
namespace {

using backup::kTestSegmentSize;
using backup::kTestSystem;
using backup::TestSegment;
using ::metal::testing::IsOkAndHolds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TransferTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(base::MakeDirectories(directory_.File("pg_wal")));
    StartAgent();
  }
  void StartAgent() {
    auto server = backup::WalServer::Start({.socket_path = socket_}, archive_, base::RealClock());
    ASSERT_OK(server.status());
    server_ = *std::move(server);
  }
  Options Of(Options::Command command, const std::string& name, const std::string& path) {
    Options options;
    options.command = command;
    options.socket_path = socket_;
    options.timeout_seconds = 20;
    options.system_identifier = kTestSystem;
    options.file_name = name;
    options.path = path;
    return options;
  }
  ExitCode PushSegment(const TestSegment& segment) {
    return Push(
        Of(Options::Command::kPush, segment.Name(), directory_.Write("segment", segment.Bytes())));
  }
  Options FetchOf(const std::string& name) { return Of(Options::Command::kFetch, name, target_); }
  std::vector<std::string> PgWal() { return *base::ListDirectory(directory_.File("pg_wal")); }

  testing::TempDir directory_;
  const std::string socket_ = directory_.File("run/wal.sock");
  const std::string target_ = directory_.File("pg_wal/RECOVERYXLOG");
  std::shared_ptr<backup::WalArchive> archive_ = std::make_shared<backup::WalArchive>(
      backup::WalArchiveOptions{.repository_path = directory_.File("repository")},
      base::RealClock(), nullptr);
  std::unique_ptr<backup::WalServer> server_;
};

TEST_F(TransferTest, PushedFileComesBack) {
  EXPECT_EQ(PushSegment({}), kDone);
  EXPECT_EQ(PushSegment({}), kDone) << "the same bytes again";
  EXPECT_EQ(Fetch(FetchOf(TestSegment{}.Name())), kDone);
  EXPECT_THAT(base::ReadFile(target_), IsOkAndHolds(TestSegment{}.Bytes()));
  EXPECT_THAT(PgWal(), ElementsAre("RECOVERYXLOG"));
  struct stat status;
  ASSERT_EQ(stat(target_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07137, 0u) << "as the umask says, and never for others";
}

TEST_F(TransferTest, ExistingTargetIsReplaced) {
  EXPECT_EQ(PushSegment({}), kDone);
  directory_.Write("pg_wal/RECOVERYXLOG", "older");
  directory_.Write("pg_wal/RECOVERYXLOG.metal-tmp", "left by a crash");
  EXPECT_EQ(Fetch(FetchOf(TestSegment{}.Name())), kDone);
  EXPECT_THAT(base::ReadFile(target_), IsOkAndHolds(TestSegment{}.Bytes()));
  EXPECT_THAT(PgWal(), ElementsAre("RECOVERYXLOG"));
}

TEST_F(TransferTest, RecoveryIsServedFromWhatWasDecodedAhead) {
  constexpr uint64_t kSegments = 5;
  for (uint64_t number = 1; number <= kSegments; ++number) {
    ASSERT_EQ(PushSegment({.start = base::Lsn{number * kTestSegmentSize}}), kDone);
  }
  for (uint64_t number = 1; number <= kSegments; ++number) {
    const TestSegment segment{.start = base::Lsn{number * kTestSegmentSize}};
    while (number > 1 && archive_->Statistics().fetched < kSegments) std::this_thread::yield();
    ASSERT_EQ(Fetch(FetchOf(segment.Name())), kDone);
    EXPECT_THAT(base::ReadFile(target_), IsOkAndHolds(segment.Bytes()));
    ASSERT_EQ(unlink(target_.c_str()), 0);
  }
  EXPECT_EQ(server_->Statistics().prefetched, kSegments - 1);
}

TEST_F(TransferTest, AbsentFileLeavesTheTargetAlone) {
  ASSERT_OK(archive_->Prepare());
  Options options = FetchOf("000000010000000000000009");
  EXPECT_EQ(Fetch(options), kNotFound);
  options.strict = true;
  EXPECT_EQ(Fetch(options), kNotFound) << "this is an answer, also for --strict";
  EXPECT_THAT(PgWal(), ElementsAre());
}

// A directory in the file's place gives an error with every read, also to root.
TEST_F(TransferTest, FileThatCannotBeReadStopsARecoveryInsteadOfEndingIt) {
  ASSERT_EQ(PushSegment({}), kDone);
  const std::string stored = directory_.File("repository/7300000000000000001/wal/00000001/" +
                                             TestSegment{}.Name() + ".wal");
  ASSERT_EQ(unlink(stored.c_str()), 0);
  ASSERT_EQ(mkdir(stored.c_str(), 0700), 0);
  Options options = FetchOf(TestSegment{}.Name());
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(Fetch(options), kFailed);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::AllOf(HasSubstr("cannot be told"), HasSubstr("HINT")));
  options.strict = true;
  EXPECT_EQ(Fetch(options), kStopRecovery);
  EXPECT_THAT(PgWal(), ElementsAre());
}

TEST_F(TransferTest, RefusalIsForPeople) {
  EXPECT_EQ(PushSegment({}), kDone);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(PushSegment({.seed = 2}), kFailed);
  EXPECT_THAT(
      ::testing::internal::GetCapturedStderr(),
      ::testing::AllOf(HasSubstr("metal-wal: push 000000010000000000000001: "), HasSubstr("HINT")));
  Options missing = Of(Options::Command::kPush, TestSegment{}.Name(), directory_.File("missing"));
  EXPECT_EQ(Push(missing), kFailed);
}

TEST_F(TransferTest, AgentThatIsAwayMeansTryAgain) {
  server_.reset();
  EXPECT_EQ(PushSegment({}), kTryAgain);
  Options options = FetchOf(TestSegment{}.Name());
  EXPECT_EQ(Fetch(options), kTryAgain);
  options.strict = true;
  options.timeout_seconds = 1;
  EXPECT_EQ(Fetch(options), kStopRecovery);
  EXPECT_THAT(PgWal(), ElementsAre());
}

TEST_F(TransferTest, StrictFetchWaitsForTheAgent) {
  EXPECT_EQ(PushSegment({}), kDone);
  server_.reset();
  base::Thread starter("starter", [this] { StartAgent(); });
  Options options = FetchOf(TestSegment{}.Name());
  options.strict = true;
  EXPECT_EQ(Fetch(options), kDone);
}

// Whether PostgreSQL would promote itself for want of WAL depends on its signal files.
TEST_F(TransferTest, RecoveryToAnEndIsStrictAndAStandbyIsNot) {
  server_.reset();
  char previous[4096];
  ASSERT_NE(getcwd(previous, sizeof previous), nullptr);
  ASSERT_EQ(chdir(directory_.path().c_str()), 0);
  Options options = FetchOf(TestSegment{}.Name());
  options.timeout_seconds = 1;
  EXPECT_EQ(Fetch(options), kTryAgain);
  directory_.Write("recovery.signal", "");
  EXPECT_EQ(Fetch(options), kStopRecovery);
  directory_.Write("standby.signal", "");
  EXPECT_EQ(Fetch(options), kTryAgain);
  // A link to itself fails as a disk that cannot be read does.
  ASSERT_EQ(unlink("standby.signal"), 0);
  ASSERT_EQ(unlink("recovery.signal"), 0);
  ASSERT_EQ(symlink("recovery.signal", "recovery.signal"), 0);
  EXPECT_EQ(Fetch(options), kStopRecovery);
  ASSERT_EQ(chdir(previous), 0);
}

TEST_F(TransferTest, AgentThatDoesNotAnswerIsLeftAtTheTimeout) {
  const std::string path = directory_.File("silent.sock");
  const base::UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  Options options = FetchOf(TestSegment{}.Name());
  options.socket_path = path;
  options.timeout_seconds = 1;
  EXPECT_EQ(Fetch(options), kTryAgain);
  EXPECT_THAT(PgWal(), ElementsAre());
}

TEST_F(TransferTest, ClusterComesFromTheWorkingDirectory) {
  std::string control(8192, '\0');
  const uint32_t version = 1300;
  std::memcpy(control.data(), &kTestSystem, sizeof kTestSystem);
  std::memcpy(control.data() + 8, &version, sizeof version);
  directory_.Write("global/pg_control", control);
  char previous[4096];
  ASSERT_NE(getcwd(previous, sizeof previous), nullptr);
  Options push = Of(Options::Command::kPush, "00000002.history",
                    directory_.Write("history", "1\t0/700000\tx\n"));
  Options fetch = FetchOf("00000002.history");
  push.system_identifier = fetch.system_identifier = 0;
  EXPECT_EQ(Push(push), kFailed) << "a history does not say whose it is";
  EXPECT_EQ(Fetch(fetch), kFailed);
  ASSERT_EQ(chdir(directory_.path().c_str()), 0);
  EXPECT_EQ(Push(push), kDone);
  EXPECT_EQ(Fetch(fetch), kDone);
  ASSERT_EQ(chdir(previous), 0);
  EXPECT_THAT(base::ReadFile(target_), IsOkAndHolds("1\t0/700000\tx\n"));
}

}  // namespace
}  // namespace metal::wal
