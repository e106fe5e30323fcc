// What the file systems of a node's directories say of themselves:
//   mount options   "emergency_ro" and "shutdown" of ext4 (Linux 6.15), "ro"
//   FAN_FS_ERROR    fanotify(7): ext4 since Linux 5.16; XFS takes the watch and tells nothing
//   XFS retries     /sys/fs/xfs/X/error: whether it would retry a failed metadata write for ever
// That none of them speaks proves nothing: a file system that lost its disk may still be shown as
// writable. XFS_IOC_HEALTH_MONITOR (Linux 7) is not used: no kernel that Metal runs on has it.
// Threading: pure functions, but for ReadXfsRetries, which reads sysfs. FilesystemJudge is not
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/inventory.h"

namespace metal::disk {

struct FilesystemId {
  unsigned major = 0, minor = 0;
  unsigned mount_id = 0;  // settings and marks are those of a mount, and gone with it
  std::string name;       // of its block device: "nvme0n1p1"
  std::string type;       // "xfs", "ext4", …
  std::string disk;
  friend bool operator==(const FilesystemId&, const FilesystemId&) = default;
};

// nullopt when it has no block device of its own (tmpfs, btrfs).
std::optional<FilesystemId> FilesystemOf(const StorageStack& stack);

struct MountState {
  bool read_only = false;  // by whoever mounted it, as far as one can see
  bool broken = false;     // the file system itself gave up: the option that says so is `mark`
  std::string mark;
};

// Of the last mount of that device in the text of /proc/self/mountinfo; nullopt: not mounted.
std::optional<MountState> FindMountState(std::string_view mountinfo, unsigned major,
                                         unsigned minor);

// Settings for one kind of error. −1 retries: for ever; a timeout of −1: none.
struct XfsRetry {
  int64_t max_retries = 0;
  int64_t timeout_seconds = 0;
};

// By kind: "EIO", "ENOSPC", "ENODEV", "default" (among them ENODATA: a medium error of NVMe).
// Empty: not XFS, or not mounted.
std::map<std::string, XfsRetry> ReadXfsRetries(const SysRoots& roots, const std::string& name);

class FilesystemJudge {
 public:
  explicit FilesystemJudge(FilesystemId id) : id_(std::move(id)) {}
  const FilesystemId& id() const { return id_; }

  // A file system that gave up, one that is read-only though it was not, and XFS that would retry
  // for ever: told at every look, and their end once. `mount` is nullopt when it is not mounted.
  std::vector<Evidence> Observe(const std::optional<MountState>& mount,
                                const std::map<std::string, XfsRetry>& retries, absl::Time time);
  // `clears` for all that stands: it is not looked at any more, and nobody else knows what was
  // said.
  std::vector<Evidence> Withdraw(absl::Time time);

 private:
  void Last(bool holds, bool& held, FaultClass fault_class, std::string text, absl::Time time,
            std::vector<Evidence>& out) const;

  FilesystemId id_;
  bool was_writable_ = false, broken_ = false, read_only_ = false, retries_ = false;
};

// One record of FAN_FS_ERROR.
struct FilesystemError {
  int error_number = 0;
  uint32_t count = 0;  // errors since the last record, this one included
};

// What was read from a fanotify group with FAN_REPORT_FID. Stops at what is cut.
std::vector<FilesystemError> ParseFilesystemErrors(std::span<const std::byte> bytes);

Evidence JudgeFilesystemError(const FilesystemError& error, const FilesystemId& id,
                              absl::Time time);

}  // namespace metal::disk
