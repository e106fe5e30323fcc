#include "agent/disk/privileged.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iterator>
#include <map>

#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "agent/disk/privileged_wire.h"
#include "agent/disk/sources/kernel_log.h"

namespace metal::disk {
namespace {

using base::MutexLock;

#if defined(__SANITIZE_THREAD__)
constexpr size_t kThreadsBeforeFork = 2;  // the sanitizer has one of its own
#else
constexpr size_t kThreadsBeforeFork = 1;
#endif

// Who may have the kernel's log, once.
class KernelLogHolder {
 public:
  KernelLogHolder() : log_(OpenKernelLog()) {}
  absl::StatusOr<base::UniqueFd> Take() {
    MutexLock lock(mutex_);
    return std::exchange(log_, absl::FailedPreconditionError("the kernel's log was taken already"));
  }

 private:
  base::Mutex mutex_;
  absl::StatusOr<base::UniqueFd> log_ ABSL_GUARDED_BY(mutex_);
};

class NoHelper final : public PrivilegedHelper {
 public:
  explicit NoHelper(std::string reason) : reason_(std::move(reason)) {}
  std::string WhyMissing() const override { return reason_; }
  absl::StatusOr<std::vector<std::byte>> ReadNvmeLog(const std::string&, const NvmeLogRequest&,
                                                     absl::Duration) override {
    return Unsupported();
  }
  absl::StatusOr<std::vector<std::byte>> NvmeIdentifyNamespace(const std::string&, uint32_t,
                                                               absl::Duration) override {
    return Unsupported();
  }
  absl::StatusOr<std::vector<std::byte>> NvmeIdentify(const std::string&, absl::Duration) override {
    return Unsupported();
  }
  absl::Status MoveToSystemdScope(pid_t, int, absl::Duration) override { return Unsupported(); }
  // Kernels that do not restrict their log give it to everybody.
  absl::StatusOr<base::UniqueFd> TakeKernelLog() override { return kernel_log_.Take(); }

 protected:
  absl::Status Unsupported() const override {
    return base::Error(absl::StatusCode::kUnimplemented, "unsupported: {}", reason_);
  }

 private:
  const std::string reason_;
  KernelLogHolder kernel_log_;
};

absl::Status StatusOfReply(const HelperReply& reply) {
  const std::string message(reply.message, strnlen(reply.message, sizeof(reply.message)));
  switch (reply.result) {
    case HelperResult::kOk:
      return absl::OkStatus();
    case HelperResult::kUnsupported:
      return base::Error(absl::StatusCode::kUnimplemented, "unsupported: {}", message);
    case HelperResult::kBusy:
      return base::Error(absl::StatusCode::kUnavailable, "{}", message);
    case HelperResult::kDeviceError:
      return base::Error(absl::StatusCode::kDataLoss, "{}", message);
    case HelperResult::kNoDevice:
      return base::Error(absl::StatusCode::kNotFound, "{}", message);
    case HelperResult::kOutOfSequence:
      return base::Error(absl::StatusCode::kFailedPrecondition, "{}", message);
    case HelperResult::kRejected:
      return base::Error(absl::StatusCode::kInvalidArgument, "{}", message);
    case HelperResult::kFailed:
      break;
  }
  return base::Error(absl::StatusCode::kInternal, "{}", message);
}

class SocketHelper final : public PrivilegedHelper {
 public:
  SocketHelper(base::UniqueFd socket, pid_t child) : socket_(std::move(socket)), child_(child) {}

  ~SocketHelper() override {
    shutdown(socket_.get(), SHUT_RDWR);
    reader_.Join();
    socket_.Reset();
    // A helper whose drive hangs cannot end now; then init gets it.
    for (int i = 0; i < 100; ++i) {
      const pid_t reaped = waitpid(child_, nullptr, WNOHANG);
      if (reaped == child_ || (reaped < 0 && errno == ECHILD)) return;
      base::RealClock().Sleep(absl::Milliseconds(10));
    }
  }

  absl::StatusOr<std::vector<std::byte>> ReadNvmeLog(const std::string& controller,
                                                     const NvmeLogRequest& log,
                                                     absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kReadNvmeLog;
    request.log_id = log.log_id;
    request.length = log.length;
    request.name_space = log.name_space;
    request.action = log.action;
    request.offset = log.offset;
    return AskDrive(controller, request, timeout);
  }

  absl::StatusOr<std::vector<std::byte>> NvmeIdentify(const std::string& controller,
                                                      absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kNvmeIdentify;
    return AskDrive(controller, request, timeout);
  }

  absl::StatusOr<std::vector<std::byte>> NvmeIdentifyNamespace(const std::string& controller,
                                                               uint32_t name_space,
                                                               absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kNvmeIdentifyNamespace;
    request.name_space = name_space;
    return AskDrive(controller, request, timeout);
  }

  absl::Status MoveToSystemdScope(pid_t postmaster, int port, absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kMoveToSystemdScope;
    request.pid = postmaster;
    request.port = port;
    return Ask(request, timeout).status();
  }

  absl::StatusOr<base::UniqueFd> WatchFilesystem(unsigned major, unsigned minor,
                                                 absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kWatchFilesystem;
    request.major = major;
    request.minor = minor;
    METAL_ASSIGN_OR_RETURN(HelperAnswer answer, Ask(request, timeout));
    if (!answer.descriptor.valid()) return absl::InternalError("the helper sent no descriptor");
    return std::move(answer.descriptor);
  }

  absl::Status SetXfsRetries(const std::string& device, const XfsRetryLimits& limits,
                             absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kSetXfsRetries;
    if (device.size() >= sizeof request.device) {
      return base::Error(absl::StatusCode::kInvalidArgument, "\"{}\" is not the name of a device",
                         device);
    }
    std::memcpy(request.device, device.data(), device.size());
    request.max_retries = limits.max_retries;
    request.retry_seconds =
        static_cast<int32_t>(absl::ToInt64Seconds(absl::Ceil(limits.timeout, absl::Seconds(1))));
    return Ask(request, timeout).status();
  }

  absl::Status RefuseConnections(int port, absl::Duration timeout) override {
    return AskPort(HelperRequestKind::kRefuseConnections, port, timeout).status();
  }

  absl::Status AllowConnections(int port, absl::Duration timeout) override {
    return AskPort(HelperRequestKind::kAllowConnections, port, timeout).status();
  }

  absl::StatusOr<host::Destroyed> DestroyConnections(int port, const std::vector<pid_t>& spared,
                                                     absl::Duration timeout) override {
    HelperRequest request;
    const size_t count = std::min(spared.size(), std::size(request.spared));
    std::copy_n(spared.begin(), count, request.spared);
    METAL_ASSIGN_OR_RETURN(const HelperAnswer answer,
                           AskPort(HelperRequestKind::kDestroyConnections, port, timeout, request));
    int32_t destroyed = 0;
    std::memcpy(&destroyed, answer.reply.data.data(), sizeof destroyed);
    const char* const left = answer.reply.message;
    return host::Destroyed{destroyed,
                           std::string(left, strnlen(left, sizeof answer.reply.message))};
  }

  absl::Status KillServer(pid_t postmaster, int port, absl::Duration timeout) override {
    HelperRequest request;
    request.pid = postmaster;
    return AskPort(HelperRequestKind::kKillServer, port, timeout, request).status();
  }

  absl::Status FeedWatchdog(const std::string& name, absl::Duration time_to_reset,
                            absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kFeedWatchdog;
    if (name.size() >= sizeof request.device) {
      return base::Error(absl::StatusCode::kInvalidArgument, "\"{}\" is not a watchdog", name);
    }
    std::memcpy(request.device, name.data(), name.size());
    request.seconds_to_reset = static_cast<int32_t>(absl::ToInt64Seconds(time_to_reset));
    return Ask(request, timeout).status();
  }

  absl::Status StopWatchdog(absl::Duration timeout) override {
    HelperRequest request;
    request.kind = HelperRequestKind::kStopWatchdog;
    return Ask(request, timeout).status();
  }

  absl::StatusOr<base::UniqueFd> TakeKernelLog() override { return kernel_log_.Take(); }

 private:
  absl::StatusOr<HelperAnswer> AskPort(HelperRequestKind kind, int port, absl::Duration timeout,
                                       HelperRequest request = {}) {
    request.kind = kind;
    request.port = port;
    return Ask(request, timeout);
  }

  absl::StatusOr<std::vector<std::byte>> AskDrive(const std::string& controller,
                                                  HelperRequest request, absl::Duration timeout) {
    if (!IsNvmeControllerName(controller)) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "\"{}\" is not the name of an NVMe controller", controller);
    }
    std::memcpy(request.controller, controller.data(), controller.size());
    METAL_ASSIGN_OR_RETURN(const HelperAnswer answer, Ask(request, timeout));
    const HelperReply& reply = answer.reply;
    const size_t length = std::min<size_t>(reply.length, reply.data.size());
    return std::vector<std::byte>(reply.data.begin(),
                                  reply.data.begin() + static_cast<ptrdiff_t>(length));
  }

  absl::StatusOr<HelperAnswer> Ask(HelperRequest request, absl::Duration timeout) {
    MutexLock lock(mutex_);
    if (gone_) return Gone();
    // Not before the first call: the helper is forked while the process still has one thread.
    if (!reader_.joinable()) reader_ = base::Thread("helper-replies", [this] { ReadReplies(); });
    request.sequence = ++sequence_;
    // Non-blocking: a helper that reads nothing must not hold its caller.
    if (send(socket_.get(), &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) !=
        static_cast<ssize_t>(sizeof(request))) {
      return base::Error(absl::StatusCode::kUnavailable, "ask the privileged helper: {}",
                         strerror(errno));
    }
    replies_[request.sequence] = nullptr;
    changed_.WaitFor(mutex_, timeout, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return gone_ || replies_[request.sequence] != nullptr;
    });
    const std::unique_ptr<HelperAnswer> answer = std::move(replies_[request.sequence]);
    replies_.erase(request.sequence);
    if (answer) {
      METAL_RETURN_IF_ERROR(StatusOfReply(answer->reply));
      return std::move(*answer);
    }
    if (gone_) return Gone();
    return base::Error(absl::StatusCode::kDeadlineExceeded,
                       "the privileged helper did not answer within {}",
                       absl::FormatDuration(timeout));
  }

  static absl::Status Gone() {
    return base::Error(absl::StatusCode::kUnavailable,
                       "the privileged helper has ended. HINT: restart metal-agent");
  }

  void ReadReplies() {
    while (true) {
      auto answer = std::make_unique<HelperAnswer>();
      const ssize_t received = ReceiveReply(socket_.get(), *answer);
      if (received < 0 && errno == EINTR) continue;
      MutexLock lock(mutex_);
      if (received <= 0) {
        gone_ = true;
        changed_.NotifyAll();
        return;
      }
      if (received != static_cast<ssize_t>(sizeof(answer->reply))) continue;
      const auto waiting = replies_.find(answer->reply.sequence);  // none: its caller gave up
      if (waiting == replies_.end()) continue;
      waiting->second = std::move(answer);
      changed_.NotifyAll();
    }
  }

  base::UniqueFd socket_;
  const pid_t child_;
  base::Mutex mutex_;
  base::CondVar changed_;
  base::Thread reader_;
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  KernelLogHolder kernel_log_;
  std::map<uint64_t, std::unique_ptr<HelperAnswer>> replies_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Status PrivilegedHelper::Unsupported() const {
  return base::Error(absl::StatusCode::kUnimplemented, "unsupported: no privileged helper");
}

absl::StatusOr<base::UniqueFd> PrivilegedHelper::WatchFilesystem(unsigned, unsigned,
                                                                 absl::Duration) {
  return Unsupported();
}

absl::Status PrivilegedHelper::RefuseConnections(int, absl::Duration) { return Unsupported(); }

absl::Status PrivilegedHelper::AllowConnections(int, absl::Duration) { return Unsupported(); }

absl::StatusOr<host::Destroyed> PrivilegedHelper::DestroyConnections(int, const std::vector<pid_t>&,
                                                                     absl::Duration) {
  return Unsupported();
}

absl::Status PrivilegedHelper::KillServer(pid_t, int, absl::Duration) { return Unsupported(); }

absl::Status PrivilegedHelper::FeedWatchdog(const std::string&, absl::Duration, absl::Duration) {
  return Unsupported();
}

absl::Status PrivilegedHelper::StopWatchdog(absl::Duration) { return Unsupported(); }

absl::Status PrivilegedHelper::SetXfsRetries(const std::string&, const XfsRetryLimits&,
                                             absl::Duration) {
  return Unsupported();
}

absl::StatusOr<base::UniqueFd> PrivilegedHelper::TakeKernelLog() { return Unsupported(); }

absl::StatusOr<std::unique_ptr<PrivilegedHelper>> StartPrivilegedHelper() {
  if (geteuid() != 0) {
    return std::make_unique<NoHelper>(
        "metal-agent was not started by root: it has no privileged helper");
  }
  METAL_ASSIGN_OR_RETURN(const auto threads, base::ListDirectory("/proc/self/task"));
  if (threads.size() > kThreadsBeforeFork) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "fork the privileged helper: the process has {} threads already",
                       threads.size());
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return base::ErrnoStatus(errno, "make", "socket pair of the privileged helper");
  }
  base::UniqueFd ours(ends[0]);
  base::UniqueFd theirs(ends[1]);
  const pid_t child = fork();
  if (child < 0) return base::ErrnoStatus(errno, "fork", "privileged helper");
  if (child == 0) {
    ours.Reset();
    ServePrivilegedRequests(theirs.Release(), "/dev");
  }
  return std::make_unique<SocketHelper>(std::move(ours), child);
}

}  // namespace metal::disk
