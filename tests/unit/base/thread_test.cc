#include "agent/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>

#include "agent/base/mutex.h"

namespace metal::base {
namespace {

TEST(ThreadTest, HasItsNameAndBlocksSignals) {
  std::string name;
  int blocked = 0;
  Thread thread("a-name-longer-than-fits", [&] {
    char buffer[32];
    pthread_getname_np(pthread_self(), buffer, sizeof buffer);
    name = buffer;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked = sigismember(&mask, SIGTERM);
  });
  thread.Join();
  EXPECT_EQ(name, "a-name-longer-t");
  EXPECT_EQ(blocked, 1);
}

TEST(ThreadTest, StarterKeepsItsSignalMask) {
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  Thread("short", [] {}).Join();
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

TEST(ThreadTest, DestructorJoins) {
  bool done = false;
  {
    Thread thread("worker", [&] { done = true; });
  }
  EXPECT_TRUE(done);
}

TEST(ThreadTest, OneThatGivesWayIsAlone) {
  const int before = getpriority(PRIO_PROCESS, 0);
  int lowered = 0;
  int policy = -1;
  Thread("computes", [&] {
    GiveWay();
    lowered = getpriority(PRIO_PROCESS, 0);
    policy = sched_getscheduler(0);
  }).Join();
  EXPECT_GE(lowered, std::max(before, 5));
  EXPECT_EQ(policy, SCHED_BATCH);
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), before);
  int other = before + 1;
  Thread("answers", [&] { other = getpriority(PRIO_PROCESS, 0); }).Join();
  EXPECT_EQ(other, before);
}

TEST(CondVarTest, WaitForEndsAtTheTimeoutOrTheCondition) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  MutexLock lock(mutex);
  EXPECT_FALSE(changed.WaitFor(mutex, absl::Milliseconds(5), [&] { return ready; }));
  Thread thread("setter", [&] {
    MutexLock inner(mutex);
    ready = true;
    changed.NotifyAll();
  });
  EXPECT_TRUE(changed.WaitFor(mutex, absl::InfiniteDuration(), [&] { return ready; }));
  EXPECT_FALSE(changed.WaitFor(mutex, -absl::InfiniteDuration(), [&] { return !ready; }));
}

}  // namespace
}  // namespace metal::base
