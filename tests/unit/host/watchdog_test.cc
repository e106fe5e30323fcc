#include "agent/host/watchdog.h"

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::host {
namespace {

using metal::testing::StatusIs;

TEST(WatchdogTest, OnlyWatchdogsHaveAName) {
  for (const char* good : {"watchdog", "watchdog0", "watchdog12"}) {
    EXPECT_TRUE(IsWatchdogName(good)) << good;
  }
  for (const char* bad : {"", "sda", "watchdog/x", "../watchdog", "watchdog0000", "watchdog x"}) {
    EXPECT_FALSE(IsWatchdogName(bad)) << bad;
  }
}

// A file stands for the device: it shows what is written to one. It takes no ioctl, as a device
// that has one time only.
TEST(WatchdogTest, IsFedAndToldWhenThatEnds) {
  metal::testing::TempDir directory;
  const std::string device = directory.Write("watchdog", "");
  {
    Watchdog watchdog;
    EXPECT_OK(watchdog.Stop());
    ASSERT_OK(watchdog.Feed(device, absl::Seconds(30)));
    ASSERT_OK(watchdog.Feed(device, absl::Seconds(30)));
    EXPECT_EQ(*base::ReadFile(device), std::string(2, '\0'));
    ASSERT_OK(watchdog.Stop());
    EXPECT_OK(watchdog.Stop());
  }
  EXPECT_EQ(*base::ReadFile(device), std::string(2, '\0') + "V");
}

// Whoever dies has not said that it meant to end.
TEST(WatchdogTest, WithoutAWordTheDeviceGoesOn) {
  metal::testing::TempDir directory;
  const std::string device = directory.Write("watchdog", "");
  { ASSERT_OK(Watchdog().Feed(device, absl::Seconds(30))); }
  EXPECT_EQ(*base::ReadFile(device), std::string(1, '\0'));
}

TEST(WatchdogTest, AnotherDeviceTakesTheFirstOnesPlace) {
  metal::testing::TempDir directory;
  const std::string first = directory.Write("watchdog", ""),
                    next = directory.Write("watchdog1", "");
  Watchdog watchdog;
  ASSERT_OK(watchdog.Feed(first, absl::Seconds(30)));
  ASSERT_OK(watchdog.Feed(next, absl::Seconds(30)));
  EXPECT_TRUE(base::ReadFile(first)->ends_with("V"));
  EXPECT_EQ(base::ReadFile(next)->size(), 1u);
  EXPECT_THAT(watchdog.Feed(directory.File("none"), absl::Seconds(30)),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace metal::host
