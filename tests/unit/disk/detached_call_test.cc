#include "agent/disk/detached_call.h"

#include <atomic>

#include "agent/base/clock.h"
#include "gtest/gtest.h"

namespace metal::disk {
namespace {

TEST(DetachedCallTest, AnAnswerInTimeIsGiven) {
  DetachedCall<int> call;
  EXPECT_EQ(call.Run(
                "answer", [] { return 7; }, absl::Seconds(10)),
            7);
  EXPECT_EQ(call.Run(
                "answer", [] { return 8; }, absl::Seconds(10)),
            8);
}

TEST(DetachedCallTest, AHungCallHoldsNobodyAndGetsNoSecondThread) {
  const auto release = std::make_shared<std::atomic<bool>>(false);
  const auto calls = std::make_shared<std::atomic<int>>(0);
  const auto hang = [release, calls] {
    ++*calls;
    while (!*release) base::RealClock().Sleep(absl::Milliseconds(1));
    return 1;
  };
  auto call = std::make_unique<DetachedCall<int>>();
  EXPECT_EQ(call->Run("hang", hang, absl::Milliseconds(10)), std::nullopt);
  EXPECT_EQ(call->Run("hang", hang, absl::Seconds(10)), std::nullopt);
  while (*calls == 0) base::RealClock().Sleep(absl::Milliseconds(1));  // it may start late
  EXPECT_EQ(*calls, 1);
  call.reset();  // while the thread still hangs
  *release = true;
  while (release.use_count() > 2) base::RealClock().Sleep(absl::Milliseconds(1));
}

TEST(DetachedCallsTest, SoManyMayHangAndTheNextOneWaitsForAFreeThread) {
  const auto release = std::make_shared<std::atomic<bool>>(false);
  const auto calls = std::make_shared<std::atomic<int>>(0);
  const std::function<int()> hang = [release, calls] {
    ++*calls;
    while (!*release) base::RealClock().Sleep(absl::Milliseconds(1));
    return 1;
  };
  const std::function<int()> answer = [] { return 7; };
  auto pool = std::make_unique<DetachedCalls>(2);
  EXPECT_EQ(pool->Run("hang", hang, absl::Milliseconds(10)), std::nullopt);
  EXPECT_EQ(pool->Run("answer", answer, absl::Seconds(60)), 7);
  EXPECT_EQ(pool->Run("hang", hang, absl::Milliseconds(10)), std::nullopt);
  EXPECT_EQ(pool->Run("hang", hang, absl::Milliseconds(10)), std::nullopt);
  base::Thread later("later", [release] { *release = true; });
  EXPECT_EQ(pool->Run("answer", answer, absl::Seconds(60)), 7) << "a thread came back";
  EXPECT_LE(*calls, 2) << "the third one found no thread";
  later.Join();
  pool.reset();
}

}  // namespace
}  // namespace metal::disk
