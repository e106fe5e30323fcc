#include "agent/disk/privileged.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <functional>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/disk/privileged_wire.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

using metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

HelperRequest NvmeRequest(const std::string& controller) {
  HelperRequest request;
  request.kind = HelperRequestKind::kReadNvmeLog;
  request.log_id = 0x02;
  request.length = 512;
  std::memcpy(request.controller, controller.data(), controller.size());
  return request;
}

TEST(PrivilegedWireTest, OnlyControllersHaveAName) {
  for (const char* good : {"nvme0", "nvme12", "nvme9999"}) EXPECT_TRUE(IsNvmeControllerName(good));
  for (const char* bad :
       {"", "nvme", "nvme0n1", "nvme00000", "sda", "../nvme0", "nvme0/", "nvme 0", "nvme-1"}) {
    EXPECT_FALSE(IsNvmeControllerName(bad)) << bad;
  }
}

TEST(PrivilegedWireTest, TheScopeIsAskedForWithoutAShell) {
  const std::vector<std::string> command = ScopeCommand({100, 101}, 5433);
  EXPECT_EQ(command[0], "/usr/bin/busctl");
  EXPECT_EQ(command[7], "metal-postgres-5433-100.scope");
  const std::vector<std::string> tail(command.end() - 6, command.end());
  EXPECT_THAT(tail, ElementsAre("PIDs", "au", "2", "100", "101", "0"));
  EXPECT_THAT(command, IsSupersetOf({"Delegate", "Before", "metal-agent.service", "KillSignal"}));
  const std::vector<std::string> attach = AttachCommand(102, "metal-postgres-5433-100.scope");
  EXPECT_THAT(std::vector<std::string>(attach.end() - 5, attach.end()),
              ElementsAre("ssau", "metal-postgres-5433-100.scope", "", "1", "102"));
}

HelperRequest HostRequest(HelperRequestKind kind, int port) {
  HelperRequest request;
  request.kind = kind;
  request.port = port;
  return request;
}

TEST(PrivilegedServerTest, WhatAFenceAsksForIsOfAPortAndNothingElse) {
  for (const HelperRequestKind kind :
       {HelperRequestKind::kRefuseConnections, HelperRequestKind::kAllowConnections,
        HelperRequestKind::kDestroyConnections, HelperRequestKind::kKillServer}) {
    for (const int port : {0, -1, 65536}) {
      EXPECT_EQ(AnswerPrivilegedRequest(HostRequest(kind, port), "/dev").reply.result,
                HelperResult::kRejected);
    }
  }
  // No group has the name of a server that never was.
  HelperRequest kill = HostRequest(HelperRequestKind::kKillServer, 1);
  kill.pid = 2147483;
  EXPECT_NE(AnswerPrivilegedRequest(kill, "/dev").reply.result, HelperResult::kOk);
}

TEST(PrivilegedServerTest, FeedsTheWatchdogOfItsProcess) {
  metal::testing::TempDir dir;
  const std::string device = dir.Write("watchdog0", "");
  host::Watchdog watchdog;
  HelperRequest feed;
  feed.kind = HelperRequestKind::kFeedWatchdog;
  feed.seconds_to_reset = 30;
  std::memcpy(feed.device, "watchdog0", sizeof "watchdog0");
  EXPECT_EQ(AnswerPrivilegedRequest(feed, dir.path()).reply.result, HelperResult::kUnsupported);
  EXPECT_EQ(AnswerPrivilegedRequest(feed, dir.path(), &watchdog).reply.result, HelperResult::kOk);
  HelperRequest stop;
  stop.kind = HelperRequestKind::kStopWatchdog;
  EXPECT_EQ(AnswerPrivilegedRequest(stop, dir.path(), &watchdog).reply.result, HelperResult::kOk);
  EXPECT_EQ(*base::ReadFile(device), std::string(1, '\0') + "V");
  std::memcpy(feed.device, "../etc/x", sizeof "../etc/x");
  EXPECT_EQ(AnswerPrivilegedRequest(feed, dir.path(), &watchdog).reply.result,
            HelperResult::kRejected);
}

TEST(PrivilegedServerTest, PathsAndUnknownLogsAreRejected) {
  metal::testing::TempDir dir;
  EXPECT_EQ(AnswerPrivilegedRequest(NvmeRequest("../etc/x"), dir.path()).reply.result,
            HelperResult::kRejected);
  HelperRequest request = NvmeRequest("nvme0");
  request.log_id = 0x07;  // reading it makes the drive collect telemetry
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  request = NvmeRequest("nvme0");
  request.length = 8192;
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  request.length = 13;
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  request = NvmeRequest("nvme0");
  request.offset = 4096;  // parts and actions are for the persistent events alone
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  request.offset = 0;
  request.action = 1;
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  request.log_id = 0x0d;
  request.action = 3;
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  request.action = 2;
  request.offset = 2;
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  request.kind = static_cast<HelperRequestKind>(77);
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
  std::memset(request.controller, 'x', sizeof(request.controller));  // no terminator
  request.kind = HelperRequestKind::kNvmeIdentify;
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kRejected);
}

TEST(PrivilegedServerTest, LogsThatReadingDoesNotChangeAreAskedFor) {
  metal::testing::TempDir dir;
  for (const uint32_t id : {0x00, 0x01, 0x02, 0x06, 0x0d, 0xc0, 0xd0}) {
    HelperRequest request = NvmeRequest("nvme0");
    request.log_id = id;
    EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kNoDevice)
        << id;
  }
  HelperRequest request = NvmeRequest("nvme0");
  request.log_id = 0x0d;
  request.action = 1;
  request.offset = 4096;
  EXPECT_EQ(AnswerPrivilegedRequest(request, dir.path()).reply.result, HelperResult::kNoDevice);
}

TEST(PrivilegedServerTest, WhatIsNoDriveIsUnsupported) {
  metal::testing::TempDir dir;
  HelperReply reply = AnswerPrivilegedRequest(NvmeRequest("nvme0"), dir.path()).reply;
  EXPECT_EQ(reply.result, HelperResult::kNoDevice);
  EXPECT_THAT(reply.message, HasSubstr("No such file"));
  dir.Write("nvme0", "a file");
  reply = AnswerPrivilegedRequest(NvmeRequest("nvme0"), dir.path()).reply;
  EXPECT_EQ(reply.result, HelperResult::kUnsupported);
  EXPECT_THAT(reply.message, HasSubstr("not a character device"));
  ASSERT_EQ(symlink("/dev/null", dir.File("nvme1").c_str()), 0);
  EXPECT_EQ(AnswerPrivilegedRequest(NvmeRequest("nvme1"), dir.path()).reply.result,
            HelperResult::kUnsupported);
}

TEST(PrivilegedWireTest, ADescriptorComesWithItsReply) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const base::UniqueFd ours(ends[0]), theirs(ends[1]);
  metal::testing::TempDir dir;
  ASSERT_OK_AND_ASSIGN(const base::UniqueFd file,
                       base::OpenFile(dir.Write("file", "passed on"), O_RDONLY));
  HelperReply reply;
  reply.sequence = 7;
  constexpr auto kSize = static_cast<ssize_t>(sizeof reply);
  EXPECT_EQ(SendReply(theirs.get(), reply, file.get()), kSize);
  EXPECT_EQ(SendReply(theirs.get(), reply, -1), kSize);
  HelperAnswer with, without;
  EXPECT_EQ(ReceiveReply(ours.get(), with), kSize);
  EXPECT_EQ(ReceiveReply(ours.get(), without), kSize);
  EXPECT_EQ(with.reply.sequence, 7u);
  EXPECT_FALSE(without.descriptor.valid());
  ASSERT_TRUE(with.descriptor.valid());
  EXPECT_EQ(fcntl(with.descriptor.get(), F_GETFD), FD_CLOEXEC);
  char text[16] = {};
  EXPECT_EQ(read(with.descriptor.get(), text, sizeof text - 1), 9);
  EXPECT_STREQ(text, "passed on");
}

TEST(PrivilegedServerTest, OnlyAPostmasterIsMoved) {
  HelperRequest request;
  request.kind = HelperRequestKind::kMoveToSystemdScope;
  request.port = 5432;
  for (const pid_t pid : {-1, 0, 1, getpid()}) {
    request.pid = pid;
    const HelperReply reply = AnswerPrivilegedRequest(request, "/dev").reply;
    EXPECT_EQ(reply.result, HelperResult::kRejected);
    EXPECT_THAT(reply.message, HasSubstr("not a postmaster"));
  }
}

// Process ids of this thread's children, as text.
std::string Children() {
  const auto text = base::ReadFile("/proc/self/task/" + std::to_string(getpid()) + "/children");
  return text.ok() ? *text : "unreadable";
}

// Runs `body` in a process of its own with one thread, as main() is when it forks the helper.
int InOwnProcess(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(PrivilegedHelperTest, TheHelperAnswersAndEndsWithItsClient) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root: the helper is forked by root alone";
  EXPECT_EQ(
      InOwnProcess([] {
        auto helper = StartPrivilegedHelper();
        if (!helper.ok()) return 1;
        const auto log =
            (*helper)->ReadNvmeLog("nvme9999", {.log_id = 0x02, .length = 512}, absl::Seconds(5));
        if (log.status().code() != absl::StatusCode::kNotFound) return 2;
        if (log.status().message().find("open /dev/nvme9999") == std::string::npos) return 3;
        if ((*helper)->NvmeIdentify("sda", absl::Seconds(5)).status().code() !=
            absl::StatusCode::kInvalidArgument) {
          return 4;
        }
        const absl::Status moved = (*helper)->MoveToSystemdScope(getpid(), 5432, absl::Seconds(5));
        if (moved.code() != absl::StatusCode::kInvalidArgument) return 5;
        const absl::Status watched = (*helper)->WatchFilesystem(0, 1, absl::Seconds(5)).status();
        if (watched.code() != absl::StatusCode::kNotFound) return 7;
        const absl::Status limited = (*helper)->SetXfsRetries("../x", {}, absl::Seconds(5));
        if (limited.code() != absl::StatusCode::kInvalidArgument) return 8;
        (*helper)->TakeKernelLog().status().IgnoreError();
        if ((*helper)->TakeKernelLog().status().code() != absl::StatusCode::kFailedPrecondition) {
          return 9;
        }
        helper->reset();
#ifdef __SANITIZE_THREAD__
        return 0;  // it sleeps for a second at its end, which is as long as it is waited for
#else
        return Children().empty() ? 0 : 6;  // ended, and reaped
#endif
      }),
      0);
}

TEST(PrivilegedHelperTest, WhoHasAnAnswerMayAskAgainAtOnce) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root: the helper is forked by root alone";
  EXPECT_EQ(InOwnProcess([] {
              auto helper = StartPrivilegedHelper();
              if (!helper.ok()) return 1;
              for (int i = 0; i < 500; ++i) {  // never "an earlier command has not come back"
                const auto log = (*helper)->ReadNvmeLog("nvme9999", {.log_id = 0x02, .length = 512},
                                                        absl::Seconds(5));
                if (!absl::IsNotFound(log.status())) return 2;
              }
              return 0;
            }),
            0);
}

TEST(PrivilegedHelperTest, TheHelperEndsWhenTheAgentIsKilled) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root: the helper is forked by root alone";
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  const int code = InOwnProcess([&] {
    auto helper = StartPrivilegedHelper();
    if (!helper.ok()) return 1;
    const std::string children = Children();
    if (write(pipe_ends[1], children.data(), children.size()) <= 0) return 2;
    if (setresuid(65534, 65534, 65534) != 0) return 3;  // as after privileges are dropped
    raise(SIGKILL);
    return 4;
  });
  ASSERT_EQ(code, 128 + SIGKILL);
  char text[32] = {};
  ASSERT_GT(read(pipe_ends[0], text, sizeof(text) - 1), 0);
  const pid_t helper = std::stoi(text);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  const base::MonotonicTime deadline = base::RealClock().Monotonic() + absl::Seconds(5);
  const auto alive = [&] {  // a zombie that nobody reaps counts as ended
    const auto stat = base::ReadFile("/proc/" + std::to_string(helper) + "/stat");
    return stat.ok() && stat->find(") Z ") == std::string::npos;
  };
  while (alive() && base::RealClock().Monotonic() < deadline) {
    base::RealClock().Sleep(absl::Milliseconds(5));
  }
  EXPECT_FALSE(alive());
}

TEST(PrivilegedHelperTest, WithoutRootEveryCallSaysWhy) {
  EXPECT_EQ(InOwnProcess([] {
              if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 1;
              auto helper = StartPrivilegedHelper();
              if (!helper.ok()) return 2;
              const absl::Status status = (*helper)->MoveToSystemdScope(1, 5432, absl::Seconds(1));
              return status.code() == absl::StatusCode::kUnimplemented &&
                             status.message().find("root") != std::string::npos &&
                             (*helper)->WhyMissing().find("root") != std::string::npos
                         ? 0
                         : 3;
            }),
            0);
}

}  // namespace
}  // namespace metal::disk
