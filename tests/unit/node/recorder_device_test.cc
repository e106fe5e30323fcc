#include "agent/node/recorder_device.h"

#include <sys/stat.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

dev_t DeviceOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_dev;
}

TEST(RecorderDeviceTest, DevicesAreComparedAndNotNames) {
  const testing::TempDir dir;
  testing::RecordedEvents events;
  WarnIfRecorderOnDataDevice(dir.path(), "/proc", DeviceOf("/proc"), events);
  EXPECT_EQ(events.Count("recorder.same_device"), 0u);
  WarnIfRecorderOnDataDevice(dir.path(), "/data", DeviceOf(dir.path()), events);
  ASSERT_EQ(events.Count("recorder.same_device"), 1u);
  EXPECT_EQ(events.events().back().severity, observe::Severity::kWarning);
  EXPECT_THAT(events.events().back().message, ::testing::HasSubstr("recorder.directory"));
}

TEST(RecorderDeviceTest, OneThatIsNotMadeYetIsWhereItWillBe) {
  const testing::TempDir dir;
  testing::RecordedEvents events;
  WarnIfRecorderOnDataDevice(dir.File("a/b"), "/data", DeviceOf(dir.path()), events);
  EXPECT_EQ(events.Count("recorder.same_device"), 1u);
}

}  // namespace
}  // namespace metal::node
