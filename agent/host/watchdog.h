// A hardware watchdog: a device that resets the host unless it is written to in time. For the
// privileged helper. Source: the kernel's watchdog/watchdog-api.rst.
// Threading: thread-safe. No call waits longer than the device does.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/fd.h"
#include "agent/base/mutex.h"

namespace metal::host {

// "watchdog" and up to three digits: a device of /dev, and nothing that could be a path.
bool IsWatchdogName(std::string_view name);

class Watchdog {
 public:
  // The device stays closed until the first Feed. When this object goes without Stop, or its
  // process dies, the device is not told that this was meant: it resets the host in its time.
  Watchdog() = default;

  // Opens the device (which starts it) with this time to a reset, or with its own where it has only
  // one, and feeds it. NOT_FOUND: no such device. FAILED_PRECONDITION: somebody else has it
  // (systemd's RuntimeWatchdogSec). Another device than the one that is open: that one is stopped.
  absl::Status Feed(const std::string& path, absl::Duration time_to_reset);
  // Tells the device that nobody will feed it (the magic 'V'), and closes it. OK when none is open.
  absl::Status Stop();

 private:
  absl::Status StopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  base::Mutex mutex_;
  std::string path_ ABSL_GUARDED_BY(mutex_);
  base::UniqueFd device_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::host
