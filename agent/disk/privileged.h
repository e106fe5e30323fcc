// The privileged helper: a small process, forked before the agent drops root, that answers a fixed
// set of requests.
// Protocol: one SOCK_SEQPACKET socketpair, fixed-size messages both ways, no paths and no commands
// from the client: a device is a validated "nvme<number>" or a block device's name or number, a
// process must be a postmaster. The helper only reads from drives, by io_uring passthrough where
// there is such, listens to errors of file systems, limits the retries of XFS, makes one systemd
// scope or control group and kills what is in it, cuts clients off PostgreSQL's port, and feeds a
// watchdog. It ends when the agent does (EOF on the socket; PR_SET_PDEATHSIG where the kernel
// allows it). A drive that does not answer holds one thread of the helper, never the agent: calls
// here end at their deadline.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/fd.h"
#include "agent/disk/sources/privileged_filesystem.h"
#include "agent/host/traffic_cut.h"

namespace metal::disk {

// One Get Log Page command.
struct NvmeLogRequest {
  uint8_t log_id = 0;
  uint32_t length = 0;  // bytes, a multiple of 4 up to 4096
  uint32_t name_space = 0xffffffff;
  // Of log 0Dh alone, and 0 for the others: what to do with the drive's reporting context (0 read,
  // 1 establish it and read, 2 release it), and where to read, bytes, a multiple of 4.
  uint8_t action = 0;
  uint64_t offset = 0;
};

// The client's end. Threading: thread-safe; a call blocks its caller until the answer or the
// deadline. Errors of all calls: UNIMPLEMENTED "unsupported: reason" (no privilege, not an NVMe
// drive, the drive does not have what was asked for, no systemd), NOT_FOUND (no such drive, or it
// is gone), DEADLINE_EXCEEDED (the helper or the drive did not answer), UNAVAILABLE (an earlier
// command to the same drive has not come back; or the helper is gone), FAILED_PRECONDITION (the
// drive expects another command before this one), DATA_LOSS (the drive answered with another NVMe
// error status).
class PrivilegedHelper {
 public:
  virtual ~PrivilegedHelper() = default;  // closes the socket: the helper exits
  // Why there is no helper and all calls but TakeKernelLog are unsupported; empty: there is one.
  virtual std::string WhyMissing() const { return ""; }
  // Get Log Page. `controller` is "nvme0". Only logs whose reading changes nothing: 00h, 01h, 02h,
  // 06h, 0Dh, C0h, D0h. Any other is INVALID_ARGUMENT.
  virtual absl::StatusOr<std::vector<std::byte>> ReadNvmeLog(const std::string& controller,
                                                             const NvmeLogRequest& request,
                                                             absl::Duration timeout) = 0;
  // Identify Controller, 4096 bytes.
  virtual absl::StatusOr<std::vector<std::byte>> NvmeIdentify(const std::string& controller,
                                                              absl::Duration timeout) = 0;
  // Identify Namespace, 4096 bytes. `name_space` is one that the kernel shows.
  virtual absl::StatusOr<std::vector<std::byte>> NvmeIdentifyNamespace(
      const std::string& controller, uint32_t name_space, absl::Duration timeout) = 0;
  // Moves a postmaster and its children, or a pgbouncer, into the scope
  // metal-postgres-<port>-<pid>.scope of the system's systemd, so that stopping the agent's unit
  // leaves them alone; without systemd into a control group of that name. OK when it is there
  // already. UNIMPLEMENTED: without systemd, and it may make no group or would take the server out
  // of one.
  virtual absl::Status MoveToSystemdScope(pid_t postmaster, int port, absl::Duration timeout) = 0;
  // A fanotify group, non-blocking, that gets the errors of the file system on the block device
  // `major`:`minor` (FAN_FS_ERROR). UNIMPLEMENTED where the kernel or the file system tells none;
  // NOT_FOUND: not mounted.
  virtual absl::StatusOr<base::UniqueFd> WatchFilesystem(unsigned major, unsigned minor,
                                                         absl::Duration timeout);
  // When the XFS on `device` ("nvme0n1p1") gives up metadata writes that fail. NOT_FOUND: no XFS is
  // mounted from it. INVALID_ARGUMENT: limits out of range.
  virtual absl::Status SetXfsRetries(const std::string& device, const XfsRetryLimits& limits,
                                     absl::Duration timeout);
  // What a fence needs of the host (agent/host). Refuses new TCP connections to the port, and takes
  // that back.
  virtual absl::Status RefuseConnections(int port, absl::Duration timeout);
  virtual absl::Status AllowConnections(int port, absl::Duration timeout);
  // Destroys the port's connections, but those of the processes `spared`, which are PostgreSQL's:
  // the first 16 count. What is left is not an error unless nothing could be destroyed.
  virtual absl::StatusOr<host::Destroyed> DestroyConnections(int port,
                                                             const std::vector<pid_t>& spared,
                                                             absl::Duration timeout);
  // SIGKILL to all in the scope or group that MoveToSystemdScope put the postmaster into.
  // NOT_FOUND: there is none. What hangs in a disk is still there afterwards.
  virtual absl::Status KillServer(pid_t postmaster, int port, absl::Duration timeout);
  // Starts the watchdog `name` ("watchdog0") or feeds it; tells it that this ends.
  virtual absl::Status FeedWatchdog(const std::string& name, absl::Duration time_to_reset,
                                    absl::Duration timeout);
  virtual absl::Status StopWatchdog(absl::Duration timeout);
  // /dev/kmsg, opened while the process was still root and positioned after what it held then.
  // Once: the second call has FAILED_PRECONDITION. PERMISSION_DENIED and NOT_FOUND as
  // OpenKernelLog.
  virtual absl::StatusOr<base::UniqueFd> TakeKernelLog();

 protected:
  // UNIMPLEMENTED, with the reason.
  virtual absl::Status Unsupported() const;
};

// Forks the helper. When the process is not root no helper is forked and every call answers
// UNIMPLEMENTED with the reason. REQUIRES: one thread in the process; called before privileges are
// dropped. Never returns in the child.
absl::StatusOr<std::unique_ptr<PrivilegedHelper>> StartPrivilegedHelper();

}  // namespace metal::disk
