#include "agent/host/server_group.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::host {
namespace {

using metal::testing::StatusIs;

TEST(ServerGroupTest, OnlyTheGroupOfTheNameIsKilled) {
  metal::testing::TempDir root;
  for (const char* group : {"system.slice/metal-postgres-5432-7.scope", "metal-postgres-5433-8"}) {
    ASSERT_OK(base::MakeDirectories(root.File(group)));
    ASSERT_OK(base::WriteFileDurably(root.File(std::string(group) + "/cgroup.kill"), "0"));
  }
  const auto killed = [&](const std::string& group) {
    return *base::ReadFile(root.File(group + "/cgroup.kill"));
  };
  ASSERT_OK(KillServerGroup(root.path(), "metal-postgres-5432-7.scope"));
  EXPECT_EQ(killed("system.slice/metal-postgres-5432-7.scope"), "1");
  EXPECT_EQ(killed("metal-postgres-5433-8"), "0");
  EXPECT_THAT(KillServerGroup(root.path(), "metal-postgres-5432-9.scope"),
              StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(base::MakeDirectories(root.File("old-kernel")));
  EXPECT_THAT(KillServerGroup(root.path(), "old-kernel"),
              StatusIs(absl::StatusCode::kUnimplemented));
}

// A process that ignores every signal it may, with a child in another session.
pid_t StartStubborn() {
  const pid_t pid = fork();
  if (pid == 0) {
    for (const int ignored : {SIGTERM, SIGINT, SIGQUIT, SIGHUP}) (void)signal(ignored, SIG_IGN);
    while (true) pause();
  }
  return pid;
}

TEST(ServerGroupTest, AllOfAGroupEndAtOnce) {
  const auto root = GroupRoot();
  if (!root.ok()) GTEST_SKIP() << root.status().message();
  const std::string prefix = fmt::format("metal-test-{}-", getpid());
  const pid_t first = StartStubborn(), second = StartStubborn();
  const absl::Status made = MakeServerGroup(*root, prefix + "1", prefix, {first, second, 2147483});
  if (!made.ok()) {
    for (const pid_t pid : {first, second}) kill(pid, SIGKILL);
  } else {
    EXPECT_OK(KillServerGroup(*root, prefix + "1"));
  }
  for (const pid_t pid : {first, second}) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  }
  if (!made.ok()) GTEST_SKIP() << made.message();
  // The next one of the prefix takes it away, once the kernel has noticed that nobody is in it.
  const std::string group = base::JoinPath(*root, prefix + "1");
  for (int i = 0; i < 3000 && base::PathExists(group); ++i) {
    ASSERT_OK(MakeServerGroup(*root, prefix + "2", prefix, {}));
    base::RealClock().Sleep(absl::Milliseconds(10));
  }
  EXPECT_FALSE(base::PathExists(group));
  std::filesystem::remove(base::JoinPath(*root, prefix + "2"));
}

}  // namespace
}  // namespace metal::host
