// What the privileged helper does for file systems. A file system is named by its block device's
// number or name, never by a path.
// Threading: any thread. Opening a mount point may hang with its disk.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/fd.h"
#include "agent/disk/inventory.h"

namespace metal::disk {

// When XFS gives up a metadata write that failed: after so many retries or so much time.
struct XfsRetryLimits {
  int max_retries = 3;
  absl::Duration timeout = absl::Seconds(5);  // rounded up to seconds: 1 to 86400
};

// A fanotify group, non-blocking, that gets the errors of the file system on that device. Needs
// CAP_SYS_ADMIN. UNIMPLEMENTED: the kernel or the file system does not tell any; NOT_FOUND: not
// mounted.
absl::StatusOr<base::UniqueFd> WatchFilesystemErrors(const SysRoots& roots, unsigned major,
                                                     unsigned minor);

// Sets the limits for EIO and for all errors without settings of their own (ENODATA). INVALID_
// ARGUMENT: not the name of a device, or limits out of range; NOT_FOUND: no XFS is mounted from it.
absl::Status SetXfsRetries(const SysRoots& roots, std::string_view device,
                           const XfsRetryLimits& limits);

}  // namespace metal::disk
