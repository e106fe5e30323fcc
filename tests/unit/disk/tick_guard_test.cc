#include "agent/disk/tick_guard.h"

#include "gtest/gtest.h"

namespace metal::disk {
namespace {

TEST(TickGuardTest, OneTickAfterASleepIsNotTrusted) {
  TickGuard guard(absl::Seconds(1));
  const auto at = [](double seconds) { return base::MonotonicTime{absl::Seconds(seconds)}; };
  EXPECT_TRUE(guard.Awake(at(100)));
  EXPECT_TRUE(guard.Awake(at(100.2)));
  EXPECT_TRUE(guard.Awake(at(101.2)));
  EXPECT_FALSE(guard.Awake(at(105)));
  EXPECT_TRUE(guard.Awake(at(105.2)));
}

}  // namespace
}  // namespace metal::disk
