#include "agent/disk/space/space_level.h"

#include "gtest/gtest.h"

namespace metal::disk {
namespace {

TEST(SpaceLevelTest, IsTheHighestThatIsReached) {
  SpaceLevel level;
  EXPECT_EQ(level.Observe(59.9), 0);
  EXPECT_EQ(level.Observe(60), 60);
  EXPECT_EQ(level.Observe(92), 90);
  EXPECT_EQ(level.Observe(100), 95);
}

TEST(SpaceLevelTest, IsLeftTwoPointsBelowIt) {
  SpaceLevel level;
  level.Observe(85);
  for (const double percent : {84.9, 83.1, 85.5, 83.0}) EXPECT_EQ(level.Observe(percent), 85);
  EXPECT_EQ(level.Observe(82.9), 75);
  EXPECT_EQ(level.Observe(84.9), 75) << "what was left has to be reached again";
  EXPECT_EQ(level.Observe(10), 0);
}

}  // namespace
}  // namespace metal::disk
