// The privileged helper: a small process, forked before the agent drops root, that answers a fixed
// set of requests.
// Protocol: one SOCK_SEQPACKET socketpair, fixed-size messages both ways, no paths and no commands
// from the client: a device is a validated "nvme<number>", a process must be a postmaster. The
// helper only reads from drives, and makes one systemd scope. It ends when the agent does (EOF on
// the socket; PR_SET_PDEATHSIG where the kernel allows it). A drive that does not answer holds one
// thread of the helper, never the agent: calls here end at their deadline.
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

namespace metal::disk {

// The client's end. Threading: thread-safe; a call blocks its caller until the answer or the
// deadline. Errors of all calls: UNIMPLEMENTED "unsupported: reason" (no privilege, no such device,
// not an NVMe drive, no systemd), DEADLINE_EXCEEDED (the helper or the drive did not answer),
// UNAVAILABLE (an earlier command to the same drive has not come back; or the helper is gone),
// DATA_LOSS (the drive answered with an NVMe error status).
class PrivilegedHelper {
 public:
  virtual ~PrivilegedHelper() = default;  // closes the socket: the helper exits
  // Get Log Page with namespace ffffffffh. `controller` is "nvme0". `length` is a multiple of 4 up
  // to 4096.
  virtual absl::StatusOr<std::vector<std::byte>> ReadNvmeLog(const std::string& controller,
                                                             uint8_t log_id, uint32_t length,
                                                             absl::Duration timeout) = 0;
  // Identify Controller, 4096 bytes.
  virtual absl::StatusOr<std::vector<std::byte>> NvmeIdentify(const std::string& controller,
                                                              absl::Duration timeout) = 0;
  // Moves a postmaster and its children, or a pgbouncer, into the scope metal-postgres-<port>.scope
  // of the system's systemd, so that stopping the agent's unit leaves them alone. OK when it is
  // there already.
  virtual absl::Status MoveToSystemdScope(pid_t postmaster, int port, absl::Duration timeout) = 0;
};

// Forks the helper. When the process is not root no helper is forked and every call answers
// UNIMPLEMENTED with the reason. REQUIRES: one thread in the process; called before privileges are
// dropped. Never returns in the child.
absl::StatusOr<std::unique_ptr<PrivilegedHelper>> StartPrivilegedHelper();

}  // namespace metal::disk
