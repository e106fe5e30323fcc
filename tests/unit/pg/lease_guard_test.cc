// The lease page between two processes, and the guard with a real process to end.
#include "agent/pg/lease_guard.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/pg/fake_postmaster.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;

base::MonotonicTime At(int64_t seconds) { return {absl::Seconds(seconds)}; }

TEST(LeaseTimesTest, TheStopBeginsBeforeTheKillAndBothBeforeTheEnd) {
  for (const int seconds : {1, 2, 10, 60, 300}) {
    const LeaseTimes times = LeaseTimesOf(At(100), absl::Seconds(seconds));
    EXPECT_EQ(times.deadline, At(100 + seconds));
    EXPECT_LT(times.ordered_stop, times.kill);
    EXPECT_LT(times.kill, times.deadline);
    EXPECT_GE(times.deadline - times.kill, absl::Milliseconds(125));
    EXPECT_GE(times.ordered_stop - At(100), absl::Seconds(seconds) / 2) << "time to renew";
    EXPECT_LE(times.deadline - times.ordered_stop, absl::Seconds(10));
  }
}

class LeasePageTest : public ::testing::Test {
 protected:
  std::unique_ptr<LeasePage> Open() { return *LeasePage::Open(path_); }

  testing::TempDir directory_;
  const std::string path_ = directory_.File("lease");
};

TEST_F(LeasePageTest, ANewPageHoldsNoLease) {
  const auto page = Open();
  EXPECT_FALSE(page->armed());
  EXPECT_FALSE(page->fired());
  EXPECT_FALSE(page->Guarded());
  EXPECT_FALSE(page->Extend(0, LeaseTimesOf(At(1), absl::Seconds(1)))) << "there is none";
}

TEST_F(LeasePageTest, OutlivesItsProcess) {
  const LeaseTimes times = LeaseTimesOf(At(100), absl::Seconds(10));
  ASSERT_TRUE(Open()->Arm(7, times));
  const auto page = Open();
  EXPECT_TRUE(page->armed());
  EXPECT_EQ(page->term(), 7u);
  EXPECT_EQ(page->times().deadline, times.deadline);
  EXPECT_EQ(page->times().ordered_stop, times.ordered_stop);
  EXPECT_EQ(page->kill_at(), times.kill);
}

TEST_F(LeasePageTest, OfAnotherBootHoldsNoLease) {
  ASSERT_TRUE(Open()->Arm(7, LeaseTimesOf(At(100), absl::Seconds(10))));
  std::string bytes = *base::ReadFile(path_);
  bytes[20] = bytes[20] == 'x' ? 'y' : 'x';  // of the boot's id
  ASSERT_OK(base::WriteFileDurably(path_, bytes));
  EXPECT_FALSE(Open()->armed());
}

TEST_F(LeasePageTest, AnotherFileIsRefused) {
  directory_.Write("lease", "hello");
  EXPECT_THAT(LeasePage::Open(path_), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(LeasePageTest, WhoFiresAndWhoExtendsAgreeOnOneOrder) {
  const auto agent = Open(), guard = Open();
  const LeaseTimes first = LeaseTimesOf(At(100), absl::Seconds(10));
  const LeaseTimes second = LeaseTimesOf(At(105), absl::Seconds(10));
  ASSERT_TRUE(agent->Arm(7, first));
  ASSERT_TRUE(agent->Extend(7, second));
  EXPECT_FALSE(guard->Fire(first.kill)) << "renewed since the guard looked";
  EXPECT_TRUE(agent->armed());
  EXPECT_TRUE(guard->Fire(second.kill));
  EXPECT_FALSE(agent->Extend(7, LeaseTimesOf(At(110), absl::Seconds(10)))) << "too late";
  EXPECT_TRUE(agent->fired());
  agent->Disarm();
  EXPECT_TRUE(agent->fired()) << "that it fired stays known";
  EXPECT_FALSE(agent->Arm(7, second)) << "that lease stays over";
  EXPECT_TRUE(agent->fired());
  EXPECT_TRUE(agent->Arm(8, second));
  EXPECT_TRUE(agent->armed()) << "until a new lease";
  EXPECT_FALSE(agent->Extend(7, second)) << "of another term";
  agent->Disarm();
  EXPECT_FALSE(agent->armed());
  EXPECT_FALSE(guard->Fire(second.kill));
}

TEST_F(LeasePageTest, ArmedAgainItIsOfTheLastTerm) {
  const auto page = Open();
  const LeaseTimes first = LeaseTimesOf(At(100), absl::Seconds(10));
  const LeaseTimes second = LeaseTimesOf(At(105), absl::Seconds(10));
  ASSERT_TRUE(page->Arm(7, first));
  ASSERT_TRUE(page->Arm(7, second));
  EXPECT_EQ(page->kill_at(), second.kill);
  ASSERT_TRUE(page->Arm(8, first));
  EXPECT_EQ(page->term(), 8u);
  EXPECT_EQ(page->kill_at(), first.kill);
  page->DisarmAt(second.kill);
  EXPECT_TRUE(page->armed()) << "another one's time";
  page->DisarmAt(first.kill);
  EXPECT_FALSE(page->armed());
  ASSERT_TRUE(page->Arm(8, second)) << "nobody fired";
}

// The guard in a process of its own, as the agent starts it.
class LeaseGuardTest : public ::testing::Test {
 protected:
  ~LeaseGuardTest() override { EXPECT_EQ(guard_, 0) << "Wait was not called"; }

  std::shared_ptr<const Postmaster> LaunchServer() {
    LaunchOptions options;
    options.place = place_;
    options.program = cluster_.bin_dir() + "/postgres";
    options.log_path = cluster_.log_path();
    options.port = cluster_.port();
    options.socket_dir = cluster_.socket_dir();
    return *LaunchPostmaster(options, clock_);
  }
  void Arm(absl::Duration until_kill) {
    const base::MonotonicTime now = clock_.SinceBoot();
    EXPECT_TRUE(page_->Arm(3, {now + until_kill / 2, now + until_kill, now + until_kill * 2}));
  }
  void StartGuard() {
    guard_ = fork();
    if (guard_ == 0) _exit(RunLeaseGuard(path_, place_, clock_));
  }
  bool AwaitWatching() {
    const base::MonotonicTime limit = clock_.Monotonic() + absl::Seconds(20);
    while (!page_->Guarded() && clock_.Monotonic() < limit) clock_.Sleep(absl::Milliseconds(2));
    return page_->Guarded();
  }
  // The guard's exit code.
  int Wait() {
    int status = -1;
    waitpid(guard_, &status, 0);
    guard_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  base::Clock& clock_ = base::RealClock();
  FakeCluster cluster_;
  const PostmasterPlace place_{cluster_.data_dir(), cluster_.bin_dir()};
  const std::string path_ = cluster_.dir().File("lease");
  const std::unique_ptr<LeasePage> page_ = *LeasePage::Open(path_);
  pid_t guard_ = 0;
};

TEST_F(LeaseGuardTest, EndsTheServerWhenNobodyRenews) {
  const auto server = LaunchServer();
  Arm(absl::Milliseconds(300));
  StartGuard();
  EXPECT_TRUE(server->WaitExit(absl::Seconds(20)));
  EXPECT_EQ(Wait(), 0);
  EXPECT_TRUE(page_->fired());
  EXPECT_GE(clock_.SinceBoot(), page_->times().ordered_stop);
}

TEST_F(LeaseGuardTest, EndsAFrozenServerToo) {
  const auto server = LaunchServer();
  ASSERT_OK(server->Signal(SIGSTOP));
  Arm(absl::Milliseconds(200));
  StartGuard();
  EXPECT_TRUE(server->WaitExit(absl::Seconds(20)));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(LeaseGuardTest, LeavesAServerWhoseLeaseIsGone) {
  const auto server = LaunchServer();
  Arm(absl::Hours(1));
  StartGuard();
  ASSERT_TRUE(AwaitWatching());
  page_->Disarm();
  EXPECT_EQ(Wait(), 0);
  EXPECT_TRUE(server->alive());
  EXPECT_FALSE(page_->Guarded());
}

TEST_F(LeaseGuardTest, FollowsALeaseThatBecomesShorter) {
  const auto server = LaunchServer();
  Arm(absl::Hours(1));
  StartGuard();
  ASSERT_TRUE(AwaitWatching());
  const base::MonotonicTime now = clock_.SinceBoot();
  ASSERT_TRUE(page_->Extend(3, {now, now + absl::Milliseconds(10), now + absl::Seconds(1)}));
  EXPECT_TRUE(server->WaitExit(absl::Seconds(20)));
  EXPECT_EQ(Wait(), 0);
}

TEST_F(LeaseGuardTest, OneGuardWatchesAPage) {
  Arm(absl::Hours(1));
  StartGuard();
  ASSERT_TRUE(AwaitWatching());
  const pid_t first = std::exchange(guard_, 0);
  StartGuard();
  EXPECT_EQ(Wait(), 0) << "the second one leaves";
  EXPECT_TRUE(page_->Guarded());
  page_->Disarm();
  guard_ = first;
  EXPECT_EQ(Wait(), 0);
}

}  // namespace
}  // namespace metal::pg
