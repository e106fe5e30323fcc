#include "agent/base/exit_deadline.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

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
        Thread hanging("hung-in-a-disk", [] { HangForEver(); });
        ExitDeadline deadline(absl::Milliseconds(20));
        deadline.Served();
        deadline.Begin();
        hanging.Join();
      },
      ::testing::ExitedWithCode(ExitDeadline::kExitCode), "exit_forced.*hung-in-a-disk");
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
