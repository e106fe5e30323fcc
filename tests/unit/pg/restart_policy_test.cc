#include "agent/pg/restart_policy.h"

#include "gmock/gmock.h"

namespace metal::pg {
namespace {

base::MonotonicTime At(int seconds) { return {absl::Seconds(seconds)}; }

TEST(RestartPolicyTest, DelaysGrowAndThenItIsQuarantine) {
  RestartPolicy policy(8, absl::Minutes(10));
  const int expected[] = {0, 1, 2, 4, 8, 16, 30, 30};
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(policy.NextDelay(At(i)), absl::Seconds(expected[i]));
    EXPECT_EQ(policy.count(At(i)), i + 1);
  }
  EXPECT_EQ(policy.NextDelay(At(9)), std::nullopt);
  EXPECT_EQ(policy.count(At(9)), 8);
}

TEST(RestartPolicyTest, OldRestartsLeaveTheWindow) {
  RestartPolicy policy(2, absl::Seconds(100));
  EXPECT_TRUE(policy.NextDelay(At(0)));
  EXPECT_TRUE(policy.NextDelay(At(50)));
  EXPECT_FALSE(policy.NextDelay(At(99)));
  EXPECT_TRUE(policy.NextDelay(At(100)));
  EXPECT_FALSE(policy.NextDelay(At(149)));
  EXPECT_EQ(policy.count(At(1000)), 0);
  EXPECT_EQ(policy.NextDelay(At(1000)), absl::ZeroDuration());
}

TEST(RestartPolicyTest, NoRestartAllowedIsQuarantineAtOnce) {
  EXPECT_EQ(RestartPolicy(0, absl::Seconds(1)).NextDelay(At(0)), std::nullopt);
}

TEST(RestartPolicyTest, ResetForgets) {
  RestartPolicy policy(1, absl::Seconds(100));
  EXPECT_TRUE(policy.NextDelay(At(0)));
  EXPECT_FALSE(policy.NextDelay(At(1)));
  policy.Reset();
  EXPECT_EQ(policy.NextDelay(At(2)), absl::ZeroDuration());
}

}  // namespace
}  // namespace metal::pg
