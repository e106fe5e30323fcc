#include "agent/node/operations/action_lock.h"

#include <gtest/gtest.h>

#include "agent/base/status.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ActionLockTest, SecondTakerLearnsWhoHoldsItAndSinceWhen) {
  testing::SimulatedClock clock;
  ActionLock lock(clock);
  ASSERT_OK_AND_ASSIGN(ActionLock::Holder first, lock.TryAcquire("operations/1", "StopPostgres"));
  clock.Advance(absl::Seconds(42));
  const auto second = lock.TryAcquire("operations/2", "Promote");
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kAborted,
                               ::testing::AllOf(HasSubstr("StopPostgres"), HasSubstr("42 s"),
                                                HasSubstr("operations/1"))));
  const auto reason = base::GetReason(second.status());
  ASSERT_TRUE(reason.has_value());
  EXPECT_EQ(reason->reason, "ACTION_IN_PROGRESS");
  EXPECT_EQ(reason->metadata.at("holder"), "operations/1");
  EXPECT_EQ(reason->metadata.at("age_seconds"), "42");
  EXPECT_EQ(lock.Current()->age, absl::Seconds(42));
  first.Release();
  EXPECT_FALSE(lock.Current().has_value());
  EXPECT_TRUE(lock.TryAcquire("operations/2", "Promote").ok());
}

TEST(ActionLockTest, MovedHolderReleasesOnce) {
  testing::SimulatedClock clock;
  ActionLock lock(clock);
  ASSERT_OK_AND_ASSIGN(ActionLock::Holder first, lock.TryAcquire("a", "A"));
  {
    ActionLock::Holder second = std::move(first);
    EXPECT_FALSE(first.held());
    EXPECT_TRUE(lock.Current().has_value());
  }
  EXPECT_FALSE(lock.Current().has_value());
  ASSERT_OK_AND_ASSIGN(first, lock.TryAcquire("b", "B"));
  EXPECT_EQ(lock.Current()->name, "b");
}

}  // namespace
}  // namespace metal::node
