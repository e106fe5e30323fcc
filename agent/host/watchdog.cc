#include "agent/host/watchdog.h"

#include <fcntl.h>
#include <linux/watchdog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/base/status.h"

namespace metal::host {

bool IsWatchdogName(std::string_view name) {
  constexpr std::string_view kPrefix = "watchdog";
  if (!name.starts_with(kPrefix) || name.size() > kPrefix.size() + 3) return false;
  return std::all_of(name.begin() + kPrefix.size(), name.end(),
                     [](char c) { return c >= '0' && c <= '9'; });
}

absl::Status Watchdog::Feed(const std::string& path, absl::Duration time_to_reset) {
  base::MutexLock lock(mutex_);
  if (device_.valid() && path != path_) METAL_RETURN_IF_ERROR(StopLocked());
  if (!device_.valid()) {
    device_ = base::UniqueFd(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!device_.valid()) {
      const bool taken = errno == EBUSY;
      const absl::Status failed = base::ErrnoStatus(errno, "open", path);
      if (!taken) return failed;
      return base::Error(
          absl::StatusCode::kFailedPrecondition,
          "{}. HINT: somebody else feeds it: systemd (RuntimeWatchdogSec), watchdogd",
          std::string(failed.message()));
    }
    path_ = path;
    int seconds = static_cast<int>(absl::ToInt64Seconds(time_to_reset));
    // A device with one time only keeps it.
    if (ioctl(device_.get(), WDIOC_SETTIMEOUT, &seconds) != 0 && errno != ENOTTY &&
        errno != EOPNOTSUPP) {
      const absl::Status failed = base::ErrnoStatus(errno, "set the time to a reset of", path);
      (void)StopLocked();
      return failed;
    }
  }
  // Any byte feeds it but 'V'.
  if (write(device_.get(), "\0", 1) == 1) return absl::OkStatus();
  return base::ErrnoStatus(errno, "feed", path);
}

absl::Status Watchdog::Stop() {
  base::MutexLock lock(mutex_);
  return StopLocked();
}

absl::Status Watchdog::StopLocked() {
  if (!device_.valid()) return absl::OkStatus();
  const bool told = write(device_.get(), "V", 1) == 1;
  const int error = errno;
  device_.Reset();
  return told ? absl::OkStatus() : base::ErrnoStatus(error, "stop", path_);
}

}  // namespace metal::host
