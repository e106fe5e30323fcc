#include "agent/node/database_devices.h"

#include <sys/stat.h>

#include "gmock/gmock.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

dev_t DeviceOf(const std::string& path) {
  struct stat info;
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_dev;
}

TEST(DatabaseDevicesTest, EachDeviceUnderTheDatabaseIsNamedOnce) {
  const testing::TempDir directory;
  const std::string& path = directory.path();
  const auto data = std::pair(path, DeviceOf(path)),
             wal = std::pair(std::string("/proc"), DeviceOf("/proc"));
  EXPECT_THAT(DevicesOf(path, absl::UnavailableError("not read")), ElementsAre(data));
  pg::DataDirectory found;
  found.wal_path = "/proc";
  found.tablespaces = {{.oid = 1, .location = path}, {.oid = 2, .location = "/nowhere"}};
  EXPECT_THAT(DevicesOf(path, found), ElementsAre(data, wal));
  EXPECT_THAT(DevicesOf("/nowhere", absl::UnavailableError("not read")), IsEmpty());
}

}  // namespace
}  // namespace metal::node
