#include "agent/base/exit_deadline.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <csignal>
#include <latch>

#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "tests/harness/temp_dir.h"

namespace metal::base {
namespace {

class ExitDeadlineTest : public ::testing::Test {
 protected:
  ExitDeadlineTest() { ::testing::GTEST_FLAG(death_test_style) = "threadsafe"; }
};

[[noreturn]] void HangForEver() {
  while (true) pause();
}

TEST_F(ExitDeadlineTest, AnEndThatHangsIsForcedAndSaysWhichThreadsAreLeft) {
  EXPECT_EXIT(
      {
        std::latch named(1);
        Thread hanging("hung-in-a-disk", [&] {
          named.count_down();
          HangForEver();
        });
        named.wait();
        ExitDeadline deadline(absl::Milliseconds(20));
        deadline.Served();
        deadline.Begin();
        hanging.Join();
      },
      ::testing::ExitedWithCode(ExitDeadline::kExitCode), "exit_forced.*hung-in-a-disk");
}

TEST_F(ExitDeadlineTest, AnEndIsForcedSoonerWhenItIsKnownToHang) {
  EXPECT_EXIT(
      {
        ExitDeadline deadline(absl::Hours(1));
        deadline.Served();
        deadline.Begin(absl::Milliseconds(20));
        HangForEver();
      },
      ::testing::ExitedWithCode(ExitDeadline::kExitCode), "did not end within 20ms");
}

TEST_F(ExitDeadlineTest, AStartThatHangsEndsAfterSigterm) {
  EXPECT_EXIT(
      {
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &signals, nullptr);
        ExitDeadline deadline(absl::Milliseconds(20));
        kill(getpid(), SIGTERM);
        HangForEver();
      },
      ::testing::ExitedWithCode(ExitDeadline::kExitCode), "exit_forced");
}

// A thread that hangs keeps the descriptors of the dead process open.
TEST_F(ExitDeadlineTest, TheEndGivesBackLocksAlsoOfDescriptorsThatStayOpen) {
  testing::TempDir directory;
  const std::string path = directory.File("lock");
  const auto open_lock = [&] { return *OpenFile(path, O_RDWR | O_CREAT); };
  const UniqueFd held = open_lock();
  const UniqueFd wanted = open_lock();
  {
    ExitDeadline deadline(absl::Hours(1));
    deadline.Served();
    ASSERT_EQ(flock(held.get(), LOCK_EX | LOCK_NB), 0);
    ASSERT_NE(flock(wanted.get(), LOCK_EX | LOCK_NB), 0);
    deadline.Begin();
  }
  EXPECT_EQ(flock(wanted.get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(ExitDeadlineTest, AnOrderlyEndIsLeftAlone) {
  EXPECT_EXIT(
      {
        {
          ExitDeadline deadline(absl::Hours(1));
          deadline.Served();
          deadline.Begin();
        }
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace metal::base
