#include "agent/disk/sources/privileged_filesystem.h"

#include <fcntl.h>
#include <linux/fanotify.h>
#include <sys/fanotify.h>

#include <algorithm>
#include <cerrno>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr int64_t kLongestTimeout = 86400;  // the kernel's limit
constexpr int kMostRetries = 1000;

// A kernel name of a block device, and nothing that could lead out of a directory.
bool IsDeviceName(std::string_view name) {
  return !name.empty() && name.size() < 32 && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '!';
         });
}

absl::Status Put(const std::string& path, int64_t value) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd file, base::OpenFile(path, O_WRONLY | O_NOFOLLOW));
  METAL_RETURN_IF_ERROR(base::WriteAll(file.get(), fmt::format("{}\n", value), path));
  return base::Annotate(file.Close(), path);
}

absl::Status NotTold(std::string_view what, int error) {
  return base::Error(absl::StatusCode::kUnimplemented, "unsupported: {}: {}", what,
                     base::ErrnoStatus(error, "watch", "errors of a file system").ToString());
}

}  // namespace

absl::StatusOr<base::UniqueFd> WatchFilesystemErrors(const SysRoots& roots, unsigned major,
                                                     unsigned minor) {
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(roots.proc + "/self/mountinfo"));
  const std::vector<Mount> mounts = ParseMountInfo(text);
  const auto mount = std::find_if(mounts.rbegin(), mounts.rend(), [&](const Mount& each) {
    return major != 0 && each.major == major && each.minor == minor;
  });
  if (mount == mounts.rend()) {
    return base::Error(absl::StatusCode::kNotFound, "device {}:{} is not mounted", major, minor);
  }
  base::UniqueFd group(static_cast<int>(
      fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID, O_RDONLY)));
  if (!group.valid()) return NotTold("the kernel has no fanotify for it", errno);
  if (fanotify_mark(group.get(), FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, AT_FDCWD,
                    mount->mount_point.c_str()) != 0) {
    return NotTold(mount->filesystem + " on this kernel tells no errors", errno);
  }
  return group;
}

absl::Status SetXfsRetries(const SysRoots& roots, std::string_view device,
                           const XfsRetryLimits& limits) {
  const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(limits.timeout, absl::Seconds(1)));
  if (!IsDeviceName(device)) {
    return base::Error(absl::StatusCode::kInvalidArgument, "\"{}\" is not the name of a device",
                       device);
  }
  if (limits.max_retries < 0 || limits.max_retries > kMostRetries || seconds < 1 ||
      seconds > kLongestTimeout) {
    return base::Error(absl::StatusCode::kInvalidArgument, "{} retries in {} s are out of range",
                       limits.max_retries, seconds);
  }
  for (const std::string_view kind : {"EIO", "default"}) {
    const std::string directory =
        fmt::format("{}/fs/xfs/{}/error/metadata/{}", roots.sys, device, kind);
    METAL_RETURN_IF_ERROR(Put(directory + "/max_retries", limits.max_retries));
    METAL_RETURN_IF_ERROR(Put(directory + "/retry_timeout_seconds", seconds));
  }
  return absl::OkStatus();
}

}  // namespace metal::disk
