#include "agent/node/fence/sick_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/node/fake_privileges.h"

namespace metal::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A process in a postmaster's place; `stubborn`: an immediate stop does nothing to it.
class Process {
 public:
  explicit Process(bool stubborn) : pid_(Fork(stubborn)) {}
  ~Process() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    (void)End();
  }
  pid_t pid() const { return pid_; }
  // The signal that ended it.
  int End() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = 0;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

 private:
  static pid_t Fork(bool stubborn) {
    sigset_t quit, before;
    sigemptyset(&quit);
    sigaddset(&quit, SIGQUIT);
    // Blocked until the child has said what it does about it.
    sigprocmask(SIG_BLOCK, &quit, &before);
    const pid_t pid = fork();
    if (pid == 0) {
      (void)signal(SIGQUIT, stubborn ? SIG_IGN : SIG_DFL);
      sigprocmask(SIG_SETMASK, &before, nullptr);
      while (true) pause();
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return pid;
  }
  pid_t pid_;
};

class SickServerTest : public ::testing::Test {
 protected:
  void Begin(const Process& process) {
    const auto postmaster = pg::Postmaster::Open(process.pid());
    ASSERT_OK(postmaster);
    observe::Fault fault;
    fault.subject = "nvme0n1";
    server_.Begin(fault, *postmaster);
  }
  void LookAfter(absl::Duration time) {
    clock_.Advance(time);
    server_.Look();
  }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  FakePrivileges helper_;
  metal::testing::RecordedEvents events_;
  std::vector<std::string> done_;
  ClientCut cut_{&helper_, 5432, directory_.File("cut"), clock_};
  SickServer server_{{.helper = &helper_,
                      .port = 5432,
                      .cut = cut_,
                      .events = events_,
                      .clock = clock_,
                      .note = [this](const observe::Fault& fault, const std::string& done) {
                        done_.push_back(fault.subject + ": " + done);
                      }}};
};

TEST_F(SickServerTest, AServerThatEndsAtOnceIsNotKilled) {
  EXPECT_EQ(server_.NextLook(), absl::InfiniteDuration());
  Process postmaster(false);
  Begin(postmaster);
  EXPECT_EQ(postmaster.End(), SIGQUIT);
  EXPECT_LT(server_.NextLook(), absl::Seconds(1));
  LookAfter(absl::Milliseconds(100));
  EXPECT_FALSE(server_.ending());
  EXPECT_THAT(done_,
              ElementsAre("nvme0n1: stopped PostgreSQL within 100 ms; destroyed 3 connections that "
                          "were left"));
  EXPECT_EQ(events_.Attribute("disk.server_down", "duration_ms"), "100");
  EXPECT_THAT(helper_.asked, ElementsAre("destroy 5432 but 0"));
}

TEST_F(SickServerTest, WhatDoesNotEndIsKilledByItsGroupAfterItsTime) {
  Process postmaster(true);
  Begin(postmaster);
  LookAfter(absl::Seconds(1));
  EXPECT_THAT(helper_.asked, IsEmpty());
  Begin(postmaster);  // the operation, later: no new time
  LookAfter(absl::Seconds(1));
  EXPECT_THAT(helper_.asked, ElementsAre("kill server"));
  EXPECT_TRUE(server_.ending());
  // The group's kill did nothing here: this one hangs, as far as anybody can see.
  LookAfter(absl::Seconds(1));
  EXPECT_FALSE(server_.ending());
  ASSERT_EQ(done_.size(), 1u);
  EXPECT_THAT(done_[0], HasSubstr("killed PostgreSQL; destroyed 3 connections that were left; 1 of "
                                  "its processes have not ended: " +
                                  std::to_string(postmaster.pid()) + " ("));
  EXPECT_EQ(events_.Count("disk.survivors"), 1u);
  EXPECT_EQ(events_.Count("disk.server_down"), 0u);
  // The fence is enforced again; it hangs as before.
  Begin(postmaster);
  LookAfter(absl::Seconds(5));
  EXPECT_FALSE(server_.ending());
  EXPECT_EQ(done_.size(), 1u);
  EXPECT_EQ(events_.Count("disk.survivors"), 1u) << "told once";
  Process next(false);
  Begin(next);
  EXPECT_TRUE(server_.ending()) << "another server";
  EXPECT_EQ(next.End(), SIGQUIT);
}

TEST_F(SickServerTest, WithoutAGroupProcessesAreKilledOneByOne) {
  helper_.answer = absl::UnimplementedError("unsupported: no cgroup v2 is mounted");
  Process postmaster(true);
  Begin(postmaster);
  LookAfter(absl::Seconds(2));
  EXPECT_EQ(postmaster.End(), SIGKILL);
  LookAfter(absl::Milliseconds(100));
  EXPECT_THAT(done_, ElementsAre("nvme0n1: killed PostgreSQL within 2100 ms"));
  EXPECT_EQ(events_.Attribute("disk.server_down", "how"), "killed");
  EXPECT_EQ(events_.Count("disk.survivors"), 0u);
}

}  // namespace
}  // namespace metal::node
