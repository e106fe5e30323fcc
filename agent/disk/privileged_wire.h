// The messages between the agent and its privileged helper, and the helper's side of the socket.
// Both messages have a fixed size; whatever else arrives is dropped. Both ends are the same
// binary: no versions.
// Threading: Serve is the helper process's main; the rest are pure functions.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "agent/base/fd.h"
#include "agent/host/watchdog.h"

namespace metal::disk {

enum class HelperRequestKind : uint32_t {
  kReadNvmeLog = 1,
  kNvmeIdentify = 2,
  kMoveToSystemdScope = 3,
  kNvmeIdentifyNamespace = 4,
  kWatchFilesystem = 20,
  kSetXfsRetries = 21,
  kRefuseConnections = 30,
  kAllowConnections = 31,
  kDestroyConnections = 32,
  kKillServer = 33,
  kFeedWatchdog = 34,
  kStopWatchdog = 35
};

struct HelperRequest {
  uint64_t sequence = 0;
  HelperRequestKind kind{};
  char controller[16] = {};  // "nvme0", NUL-terminated
  uint32_t log_id = 0;
  uint32_t length = 0;
  uint32_t name_space = 0;
  uint32_t action = 0;
  uint64_t offset = 0;
  int32_t pid = 0;
  int32_t port = 0;
  // Of a file system: its block device's number, or its name ("nvme0n1p1", NUL-terminated).
  uint32_t major = 0, minor = 0;
  char device[32] = {};
  int32_t max_retries = 0;
  int32_t retry_seconds = 0;
  // Of a watchdog, whose name is in `device`.
  int32_t seconds_to_reset = 0;
  // Processes of PostgreSQL whose connections are left alone; 0: none.
  int32_t spared[16] = {};
};

enum class HelperResult : uint32_t {
  kOk,
  kUnsupported,
  kBusy,
  kDeviceError,
  kRejected,
  kFailed,
  kNoDevice,
  kOutOfSequence
};

struct HelperReply {
  uint64_t sequence = 0;
  HelperResult result = HelperResult::kFailed;
  uint32_t length = 0;     // bytes of data
  char message[256] = {};  // NUL-terminated; of kOk: what could not be done of a part, mostly empty
  std::array<std::byte, 4096> data{};
};
static_assert(std::is_trivially_copyable_v<HelperRequest> &&
              std::is_trivially_copyable_v<HelperReply>);

// "nvme" and 1 to 4 digits: a controller, and nothing that could be a path.
bool IsNvmeControllerName(std::string_view name);

// "metal-postgres-5432-4711.scope": one for each postmaster, since the scope of a crashed one lives
// as long as its last child does.
std::string ScopeName(int port, pid_t pid);
// The busctl command that asks systemd for the scope. REQUIRES: the postmaster is pids.front().
std::vector<std::string> ScopeCommand(const std::vector<pid_t>& pids, int port);
// The busctl command that moves one more process into a scope that is there.
std::vector<std::string> AttachCommand(pid_t pid, const std::string& scope);

// Answers requests until the other end closes, then ends the process. `device_root` is "/dev" but
// in tests.
[[noreturn]] void ServePrivilegedRequests(int socket, const std::string& device_root);

// A reply and the descriptor that goes with it, if any.
struct HelperAnswer {
  HelperReply reply;
  base::UniqueFd descriptor;
};

// Answers one request; what Serve does for each. Blocks as long as the drive does. `watchdog`: the
// one that the process feeds; null: requests for one are unsupported.
HelperAnswer AnswerPrivilegedRequest(const HelperRequest& request, const std::string& device_root,
                                     host::Watchdog* watchdog = nullptr);

// Those for the host (privileged_host.cc): its connections, PostgreSQL's control group, the
// watchdog.
bool IsForHost(HelperRequestKind kind);
HelperReply AnswerHostRequest(const HelperRequest& request, const std::string& device_root,
                              host::Watchdog* watchdog);
// A reply without data.
HelperReply MakeReply(HelperResult result, const std::string& message);
HelperReply ReplyOf(const absl::Status& status);
// A postmaster, a process of its, or the PgBouncer in front of it.
bool IsServer(pid_t pid);

// One message with an optional descriptor (−1: none). As sendmsg(2) and recvmsg(2).
ssize_t SendReply(int socket, const HelperReply& reply, int descriptor);
ssize_t ReceiveReply(int socket, HelperAnswer& answer);

}  // namespace metal::disk
