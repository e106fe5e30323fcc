#include "agent/node/database_devices.h"

#include <sys/stat.h>

#include <algorithm>

namespace metal::node {

std::vector<std::pair<std::string, dev_t>> DevicesOf(
    const std::string& data_dir, const absl::StatusOr<pg::DataDirectory>& directory) {
  std::vector<std::string> paths = {data_dir};
  if (directory.ok()) {
    if (!directory->wal_path.empty()) paths.push_back(directory->wal_path);
    for (const auto& each : directory->tablespaces) paths.push_back(each.location);
  }
  std::vector<std::pair<std::string, dev_t>> devices;
  for (const std::string& path : paths) {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) continue;
    const bool known =
        std::ranges::any_of(devices, [&](const auto& each) { return each.second == info.st_dev; });
    if (!known) devices.emplace_back(path, info.st_dev);
  }
  return devices;
}

}  // namespace metal::node
