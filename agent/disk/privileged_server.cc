// The privileged helper's side: runs as root in its own process. Declared in privileged_wire.h.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <initializer_list>
#include <set>
#include <span>

#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/mutex.h"
#include "agent/base/proc.h"
#include "agent/base/subprocess.h"
#include "agent/base/thread.h"
#include "agent/disk/nvme/nvme_status.h"
#include "agent/disk/nvme/passthrough.h"
#include "agent/disk/privileged_wire.h"
#include "agent/disk/sources/privileged_filesystem.h"
#include "agent/host/server_group.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr uint8_t kGetLogPage = 0x02;
constexpr uint8_t kIdentify = 0x06;
constexpr uint32_t kMaxLength = sizeof(HelperReply::data);
constexpr size_t kMaxRunning = 8;
constexpr uint8_t kPersistentEvents = 0x0d;
constexpr uint32_t kReleaseContext = 2;
constexpr absl::Duration kScopeStop = absl::Minutes(5);  // for the last checkpoint of a shutdown
// The list of logs, error information, SMART, self-test, persistent events, OCP C0h, Amazon D0h:
// logs that reading does not change.
constexpr uint32_t kReadableLogs[] = {0x00, 0x01, 0x02, 0x06, kPersistentEvents, 0xc0, 0xd0};

std::string_view ControllerOf(const HelperRequest& request) {
  return {request.controller, strnlen(request.controller, sizeof(request.controller))};
}

// What the drive's own refusal means to the caller.
HelperResult ResultOfStatus(uint16_t nvme_status) {
  switch (nvme_status) {
    case 0x001:  // invalid opcode
    case 0x002:  // invalid field
    case 0x00b:  // invalid namespace
    case 0x109:  // invalid log page
      return HelperResult::kUnsupported;
    case 0x00c:  // command sequence error
      return HelperResult::kOutOfSequence;
    default:
      return HelperResult::kDeviceError;
  }
}

HelperResult ResultOfErrno(int error) {
  switch (error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return HelperResult::kNoDevice;
    case ENOTTY:
    case EPERM:
    case EACCES:
    case EINVAL:
    case EOPNOTSUPP:
      return HelperResult::kUnsupported;
    default:
      return HelperResult::kDeviceError;
  }
}

HelperReply RunDriveCommand(const HelperRequest& request, const std::string& device_root,
                            AdminCommand command, uint32_t length) {
  const std::string path = fmt::format("{}/{}", device_root, ControllerOf(request));
  base::UniqueFd device(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!device.valid()) {
    const bool gone = ResultOfErrno(errno) == HelperResult::kNoDevice;
    return MakeReply(gone ? HelperResult::kNoDevice : HelperResult::kUnsupported,
                     fmt::format("open {}: {}", path, strerror(errno)));
  }
  struct stat info {};
  if (fstat(device.get(), &info) != 0 || !S_ISCHR(info.st_mode)) {
    return MakeReply(HelperResult::kUnsupported, path + " is not a character device");
  }
  HelperReply reply;
  command.data = std::span(reply.data).first(length);
  const AdminAnswer answer = RunAdminCommand(device.get(), command);
  if (answer.error != 0) {
    return MakeReply(ResultOfErrno(answer.error),
                     fmt::format("admin command {:#04x} to {}: {}", unsigned{command.opcode}, path,
                                 strerror(answer.error)));
  }
  if (answer.nvme_status != 0) {
    const NvmeStatus status{.type = static_cast<uint8_t>(answer.nvme_status >> 8),
                            .code = static_cast<uint8_t>(answer.nvme_status & 0xff)};
    return MakeReply(ResultOfStatus(answer.nvme_status),
                     fmt::format("admin command {:#04x} to {}: {}", unsigned{command.opcode}, path,
                                 StatusText(status)));
  }
  reply.result = HelperResult::kOk;
  reply.length = length;
  return reply;
}

bool IsReadableLog(const HelperRequest& request) {
  const bool has_parameters = request.log_id == kPersistentEvents;
  if (request.length == 0 || request.length > kMaxLength || request.length % 4 != 0) return false;
  if (request.offset % 4 != 0 || request.action > kReleaseContext) return false;
  if (!has_parameters && (request.offset != 0 || request.action != 0)) return false;
  return std::find(std::begin(kReadableLogs), std::end(kReadableLogs), request.log_id) !=
         std::end(kReadableLogs);
}

HelperReply ReadLog(const HelperRequest& request, const std::string& device_root) {
  if (!IsReadableLog(request)) {
    return MakeReply(
        HelperResult::kRejected,
        fmt::format("log {:#04x} with {} bytes is not offered", request.log_id, request.length));
  }
  AdminCommand command;
  command.opcode = kGetLogPage;
  command.name_space = request.name_space;
  command.cdw10 = request.log_id | (request.action << 8) | ((request.length / 4 - 1) << 16);
  command.cdw12 = static_cast<uint32_t>(request.offset);
  command.cdw13 = static_cast<uint32_t>(request.offset >> 32);
  return RunDriveCommand(request, device_root, command, request.length);
}

HelperReply Identify(const HelperRequest& request, const std::string& device_root) {
  const bool controller = request.kind == HelperRequestKind::kNvmeIdentify;
  AdminCommand command;
  command.opcode = kIdentify;
  command.name_space = controller ? 0 : request.name_space;
  command.cdw10 = controller ? 1 : 0;  // CNS
  return RunDriveCommand(request, device_root, command, kMaxLength);
}

std::vector<pid_t> WithChildren(pid_t pid) {
  std::vector<pid_t> pids = {pid};
  const auto text = base::ReadFile(fmt::format("/proc/{0}/task/{0}/children", pid));
  if (!text.ok()) return pids;
  const char* at = text->data();
  const char* const end = at + text->size();
  while (at < end) {
    pid_t child = 0;
    const auto [next, error] = std::from_chars(at, end, child);
    if (error != std::errc()) {
      ++at;
      continue;
    }
    pids.push_back(child);
    at = next;
  }
  return pids;
}

bool IsInScope(pid_t pid, const std::string& scope) {
  const auto text = base::ReadFile(fmt::format("/proc/{}/cgroup", pid));
  return text.ok() && text->find("/" + scope) != std::string::npos;
}

// Of cgroup v2: nobody has put the process under limits that another group would take away.
bool IsInRootGroup(pid_t pid) {
  const auto text = base::ReadFile(fmt::format("/proc/{}/cgroup", pid));
  return text.ok() && ("\n" + *text).find("\n0::/\n") != std::string::npos;
}

// Without systemd.
HelperReply MoveToGroup(const HelperRequest& request, const std::string& group) {
  if (IsInScope(request.pid, group)) return MakeReply(HelperResult::kOk, "");
  if (!IsInRootGroup(request.pid)) {
    return MakeReply(HelperResult::kUnsupported,
                     fmt::format("process {} stays in its control group", request.pid));
  }
  const auto root = host::GroupRoot();
  if (!root.ok()) return ReplyOf(root.status());
  const std::string stale = fmt::format("metal-postgres-{}-", request.port);
  const absl::Status made = host::MakeServerGroup(*root, group, stale, WithChildren(request.pid));
  // Again for children that were born between the look at them and the move of their parent.
  return ReplyOf(made.ok() ? host::MakeServerGroup(*root, group, stale, WithChildren(request.pid))
                           : made);
}

// Runs busctl to its end. `what`: what it is to do, for the error.
HelperReply CallSystemd(std::vector<std::string> command, const std::string& what) {
  base::SubprocessOptions options;
  options.argv = std::move(command);
  options.timeout = absl::Seconds(5);
  const auto result = base::RunSubprocess(options);
  if (!result.ok()) {
    return MakeReply(
        absl::IsNotFound(result.status()) ? HelperResult::kUnsupported : HelperResult::kFailed,
        std::string(result.status().message()));
  }
  if (result->ok()) return MakeReply(HelperResult::kOk, "");
  return MakeReply(HelperResult::kFailed, fmt::format("{}: {}", what, result->LastLine()));
}

// Children that were born between the look at them and the move of their parent. One that ends
// meanwhile makes systemd refuse all, and needs no move: hence one call for each, whose failure
// counts where the child still lives outside.
HelperReply MoveLateChildren(pid_t postmaster, const std::string& scope) {
  for (const pid_t pid : WithChildren(postmaster)) {
    if (IsInScope(pid, scope)) continue;
    const HelperReply moved = CallSystemd(AttachCommand(pid, scope), "move a child to " + scope);
    const auto stat = base::ReadProcStat(pid);
    if (moved.result != HelperResult::kOk && stat.ok() && stat->state != 'Z') return moved;
  }
  return MakeReply(HelperResult::kOk, "");
}

HelperReply MoveToScope(const HelperRequest& request) {
  if (request.pid <= 1 || request.port < 1 || request.port > 65535 || !IsServer(request.pid)) {
    return MakeReply(HelperResult::kRejected,
                     fmt::format("process {} is not a postmaster or its pgbouncer", request.pid));
  }
  const std::string scope = ScopeName(request.port, request.pid);
  if (!base::PathExists("/run/systemd/system")) return MoveToGroup(request, scope);
  if (!IsInScope(request.pid, scope)) {
    const HelperReply made =
        CallSystemd(ScopeCommand(WithChildren(request.pid), request.port), "make " + scope);
    if (made.result != HelperResult::kOk) return made;
    for (int i = 0; i < 40 && !IsInScope(request.pid, scope); ++i) {  // the job runs in systemd
      base::RealClock().Sleep(absl::Milliseconds(50));
    }
  }
  if (IsInScope(request.pid, scope)) return MoveLateChildren(request.pid, scope);
  return MakeReply(HelperResult::kFailed, fmt::format("systemd made no {} within 2 s", scope));
}

std::string_view DeviceOf(const HelperRequest& request) {
  return {request.device, strnlen(request.device, sizeof(request.device))};
}

HelperAnswer WatchFilesystem(const HelperRequest& request) {
  auto group = WatchFilesystemErrors(SysRoots(), request.major, request.minor);
  HelperAnswer answer;
  answer.reply = ReplyOf(group.status());
  if (group.ok()) answer.descriptor = *std::move(group);
  return answer;
}

bool IsForDrive(const HelperRequest& request) {
  return request.kind == HelperRequestKind::kReadNvmeLog ||
         request.kind == HelperRequestKind::kNvmeIdentify ||
         request.kind == HelperRequestKind::kNvmeIdentifyNamespace;
}

// What one command holds while it runs.
std::string KeyOf(const HelperRequest& request) {
  switch (request.kind) {
    case HelperRequestKind::kMoveToSystemdScope:
      return "systemd";
    case HelperRequestKind::kWatchFilesystem:
      return fmt::format("file system {}:{}", request.major, request.minor);
    case HelperRequestKind::kSetXfsRetries:
      return fmt::format("XFS of {}", DeviceOf(request));
    case HelperRequestKind::kRefuseConnections:
    case HelperRequestKind::kAllowConnections:
      return "nftables";
    case HelperRequestKind::kDestroyConnections:
      return "connections";
    case HelperRequestKind::kKillServer:
      return "control groups";
    case HelperRequestKind::kFeedWatchdog:
    case HelperRequestKind::kStopWatchdog:
      return "the watchdog";
    default:
      return std::string(ControllerOf(request));
  }
}

// Commands under way, by drive: a drive that hangs gets no second one.
class Running {
 public:
  // Drives that hang leave room for what a fence needs.
  bool Enter(const std::string& key, bool for_host) {
    base::MutexLock lock(mutex_);
    const size_t most = for_host ? 2 * kMaxRunning : kMaxRunning;
    return keys_.size() < most && keys_.insert(key).second;
  }
  void Leave(const std::string& key) {
    base::MutexLock lock(mutex_);
    keys_.erase(key);
  }

 private:
  base::Mutex mutex_;
  std::set<std::string> keys_ ABSL_GUARDED_BY(mutex_);
};

void PrepareProcess(int socket) {
  prctl(PR_SET_NAME, "metal-helper");
  prctl(PR_SET_PDEATHSIG,
        SIGKILL);  // has no effect once the agent is not root any more: then EOF ends it
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  // Signals to the agent's process group are for the agent; the helper ends with it.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) std::signal(signal, SIG_IGN);
  if (chdir("/") != 0) _exit(1);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) dup2(null, 0);
  if (socket > 3) close_range(3, static_cast<unsigned>(socket) - 1, 0);
  close_range(static_cast<unsigned>(socket) + 1, ~0u, 0);
}

}  // namespace

HelperReply MakeReply(HelperResult result, const std::string& message) {
  HelperReply reply;
  reply.result = result;
  const size_t length = std::min(message.size(), sizeof(reply.message) - 1);
  std::memcpy(reply.message, message.data(), length);
  return reply;
}

HelperReply ReplyOf(const absl::Status& status) {
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return MakeReply(HelperResult::kOk, "");
    case absl::StatusCode::kUnimplemented:
      return MakeReply(HelperResult::kUnsupported, message);
    case absl::StatusCode::kNotFound:
      return MakeReply(HelperResult::kNoDevice, message);
    case absl::StatusCode::kInvalidArgument:
      return MakeReply(HelperResult::kRejected, message);
    default:
      return MakeReply(HelperResult::kFailed, message);
  }
}

bool IsServer(pid_t pid) {
  char target[4096];
  const std::string link = fmt::format("/proc/{}/exe", pid);
  const ssize_t length = readlink(link.c_str(), target, sizeof(target));
  if (length <= 0) return false;
  std::string_view path(target, static_cast<size_t>(length));
  constexpr std::string_view kDeleted = " (deleted)";  // the package was upgraded under it
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  const std::string_view name = path.substr(path.rfind('/') + 1);
  return name == "postgres" || name == "pgbouncer";
}

bool IsNvmeControllerName(std::string_view name) {
  constexpr std::string_view kPrefix = "nvme";
  if (name.size() <= kPrefix.size() || name.size() > kPrefix.size() + 4) return false;
  return name.starts_with(kPrefix) && std::all_of(name.begin() + kPrefix.size(), name.end(),
                                                  [](char c) { return c >= '0' && c <= '9'; });
}

std::string ScopeName(int port, pid_t pid) {
  return fmt::format("metal-postgres-{}-{}.scope", port, pid);
}

std::vector<std::string> ScopeCommand(const std::vector<pid_t>& pids, int port) {
  std::vector<std::string> command = {"/usr/bin/busctl",
                                      "call",
                                      "org.freedesktop.systemd1",
                                      "/org/freedesktop/systemd1",
                                      "org.freedesktop.systemd1.Manager",
                                      "StartTransientUnit",
                                      "ssa(sv)a(sa(sv))"};
  const auto add = [&command](std::initializer_list<std::string> words) {
    command.insert(command.end(), words);
  };
  add({ScopeName(port, pids.front()), "fail", "8"});
  add({"Description", "s", fmt::format("PostgreSQL on port {}, run by metal-agent", port)});
  add({"CollectMode", "s", "inactive-or-failed"});
  // Delegated: systemd leaves it alone when the kernel ends one backend for want of memory.
  add({"Delegate", "b", "true"});
  // When the host goes down: first the agent, then PostgreSQL in good order, then its file system.
  add({"Before", "as", "1", "metal-agent.service"});
  add({"After", "as", "2", "local-fs.target", "remote-fs.target"});
  add({"KillSignal", "i", fmt::format("{}", SIGINT)});  // a fast shutdown; SIGTERM would be smart
  add({"TimeoutStopUSec", "t", fmt::format("{}", absl::ToInt64Microseconds(kScopeStop))});
  add({"PIDs", "au", std::to_string(pids.size())});
  for (const pid_t pid : pids) command.push_back(std::to_string(pid));
  command.push_back("0");
  return command;
}

std::vector<std::string> AttachCommand(pid_t pid, const std::string& scope) {
  return {"/usr/bin/busctl",
          "call",
          "org.freedesktop.systemd1",
          "/org/freedesktop/systemd1",
          "org.freedesktop.systemd1.Manager",
          "AttachProcessesToUnit",
          "ssau",
          scope,
          "",
          "1",
          std::to_string(pid)};
}

HelperAnswer AnswerPrivilegedRequest(const HelperRequest& request, const std::string& device_root,
                                     host::Watchdog* watchdog) {
  if (IsForDrive(request) && !IsNvmeControllerName(ControllerOf(request))) {
    return {.reply = MakeReply(HelperResult::kRejected, "not the name of an NVMe controller"),
            .descriptor = {}};
  }
  HelperAnswer answer;
  if (IsForHost(request.kind)) {
    answer.reply = AnswerHostRequest(request, device_root, watchdog);
    return answer;
  }
  switch (request.kind) {
    case HelperRequestKind::kReadNvmeLog:
      answer.reply = ReadLog(request, device_root);
      return answer;
    case HelperRequestKind::kNvmeIdentify:
    case HelperRequestKind::kNvmeIdentifyNamespace:
      answer.reply = Identify(request, device_root);
      return answer;
    case HelperRequestKind::kMoveToSystemdScope:
      answer.reply = MoveToScope(request);
      return answer;
    case HelperRequestKind::kWatchFilesystem:
      return WatchFilesystem(request);
    case HelperRequestKind::kSetXfsRetries:
      answer.reply = ReplyOf(SetXfsRetries(
          SysRoots(), DeviceOf(request),
          {.max_retries = request.max_retries, .timeout = absl::Seconds(request.retry_seconds)}));
      return answer;
    default:
      break;
  }
  answer.reply = MakeReply(HelperResult::kRejected, "unknown request");
  return answer;
}

void ServePrivilegedRequests(int socket, const std::string& device_root) {
  PrepareProcess(socket);
  Running running;
  host::Watchdog watchdog;  // not told when the agent dies: its next start goes on in time
  while (true) {
    HelperRequest request;
    const ssize_t received = recv(socket, &request, sizeof(request), 0);
    if (received == 0) _exit(0);
    if (received < 0 && errno != EINTR) _exit(1);
    if (received != static_cast<ssize_t>(sizeof(request))) continue;
    const std::string key = KeyOf(request);
    if (!running.Enter(key, IsForHost(request.kind))) {
      HelperReply busy =
          MakeReply(HelperResult::kBusy, "an earlier command to " + key + " has not come back");
      busy.sequence = request.sequence;
      SendReply(socket, busy, -1);
      continue;
    }
    base::Thread worker("metal-helper", [=, &running, &watchdog] {
      HelperAnswer answer = AnswerPrivilegedRequest(request, device_root, &watchdog);
      answer.reply.sequence = request.sequence;
      running.Leave(key);  // first: with the answer in hand the agent may ask for the next at once
      SendReply(socket, answer.reply, answer.descriptor.get());
    });
    worker.Detach();
  }
}

}  // namespace metal::disk
