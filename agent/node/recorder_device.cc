#include "agent/node/recorder_device.h"

#include <sys/stat.h>

#include <cerrno>
#include <optional>

#include "agent/base/file.h"
#include "agent/disk/detached_call.h"
#include "agent/node/emit.h"
#include "fmt/format.h"

namespace metal::node {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(2);

// Of the directory, or of what it will be made in.
std::optional<dev_t> DeviceOf(std::string path) {
  struct stat info {};
  while (::stat(path.c_str(), &info) != 0) {
    const std::string above = base::DirectoryOf(path);
    if (errno != ENOENT || above == path) return std::nullopt;
    path = above;
  }
  return info.st_dev;
}

}  // namespace

void WarnIfRecorderOnDataDevice(const std::string& recorder, const std::string& data_directory,
                                dev_t data_device, observe::EventLog& events) {
  // The recorder's disk may hang where the data disk does not.
  disk::DetachedCall<std::optional<dev_t>> call;
  const auto device = call.Run(
      "recorder-disk", [recorder] { return DeviceOf(recorder); }, kPatience);
  if (!device || *device != data_device) return;
  Emit(events, observe::Severity::kWarning, "recorder.same_device", recorder,
       fmt::format("{} is on the same device as {}: a dying data disk takes the flight recorder "
                   "and its captures with it. HINT: set recorder.directory to another device",
                   recorder, data_directory));
}

}  // namespace metal::node
