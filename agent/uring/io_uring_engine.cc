#include "agent/uring/io_uring_engine.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>

#include "absl/time/clock.h"
#include "agent/base/check.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/uring/sync_io.h"

namespace metal::uring {
namespace {

constexpr uint32_t kMaxRefusals = 1000;

// From what we want to what any kernel since 5.11 has.
constexpr std::array<unsigned, 4> kFlagSets = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,  // 6.1
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,   // 6.0
    IORING_SETUP_COOP_TASKRUN,                                // 5.19
    0,
};

absl::Status SetupError(int error) {
  const auto sysctl = base::ReadFile("/proc/sys/kernel/io_uring_disabled");
  const std::string disabled = sysctl.ok() ? sysctl->substr(0, sysctl->find('\n')) : "";
  return base::Error(base::ErrnoCode(error), "io_uring: {} ({})", std::strerror(error),
                     ExplainSetupError(error, disabled));
}

// A ring with the given flags that runs one no-op. 0 or an errno.
int TryRing(unsigned flags) {
  io_uring ring{};
  io_uring_params params{};
  params.flags = flags;
  if (const int error = io_uring_queue_init_params(2, &ring, &params); error < 0) return -error;
  int result = 0;
  if (!(params.features & IORING_FEAT_EXT_ARG)) result = EOPNOTSUPP;
  if (result == 0) {
    io_uring_prep_nop(io_uring_get_sqe(&ring));
    const int submitted = io_uring_submit_and_wait(&ring, 1);
    io_uring_cqe* cqe = nullptr;
    if (submitted < 0) {
      result = -submitted;
    } else if (io_uring_peek_cqe(&ring, &cqe) != 0 || cqe->res != 0) {
      result = EIO;
    }
  }
  io_uring_queue_exit(&ring);
  return result;
}

}  // namespace

std::string ExplainSetupError(int error, std::string_view sysctl_disabled) {
  switch (error) {
    case EPERM:
    case EACCES:
      if (sysctl_disabled == "2") return "kernel.io_uring_disabled is 2";
      if (sysctl_disabled == "1") {
        return "kernel.io_uring_disabled is 1 and this user is not in kernel.io_uring_group";
      }
      return "a seccomp filter or security module forbids it, as container run times do";
    case ENOSYS:
      return "the kernel is built without it, or a seccomp filter hides it";
    case ENOMEM:
      return "no memory, or RLIMIT_MEMLOCK is too small for a ring on kernels before 5.12";
    case EMFILE:
    case ENFILE:
      return "no file descriptor is free";
    case EINVAL:
    case EOPNOTSUPP:
      return "the kernel is older than 5.11";
    default:
      return "unexpected answer of io_uring_setup";
  }
}

absl::StatusOr<std::unique_ptr<IoEngine>> IoUringEngine::Create(uint32_t depth) {
  int error = EINVAL;
  for (const unsigned flags : kFlagSets) {
    error = TryRing(flags);
    if (error == 0) return CreateWithFlags(depth, flags);
    if (error != EINVAL) break;
  }
  return SetupError(error);
}

absl::StatusOr<std::unique_ptr<IoEngine>> IoUringEngine::CreateWithFlags(uint32_t depth,
                                                                         unsigned flags) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd wake, WakeSignal::MakeFd());
  auto engine = std::unique_ptr<IoUringEngine>(new IoUringEngine(depth, std::move(wake)));
  io_uring_params params{};
  // SINGLE_ISSUER takes the thread that enables the ring, so it is made disabled and enabled at its
  // first use.
  params.flags = flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP;
  const uint32_t entries = std::bit_ceil(depth + 1);  // one more for the wake-up
  const int error = -io_uring_queue_init_params(entries, &engine->ring_, &params);
  if (error != 0) return SetupError(error);
  engine->ring_made_ = true;
  return engine;
}

IoUringEngine::~IoUringEngine() {
  if (!ring_made_) return;
  std::vector<IoRequest*> dropped;
  while (bound_ && in_flight_ > 0) METAL_CHECK(Reap(dropped, absl::InfiniteDuration()).ok());
  io_uring_queue_exit(&ring_);
}

absl::Status IoUringEngine::BindToThisThread() {
  if (bound_) {
    METAL_CHECK(owner_ == std::this_thread::get_id());
    return absl::OkStatus();
  }
  // The system call itself: liburing 2.3 declares io_uring_enable_rings and does not export it.
  if (syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) <
      0) {
    return base::ErrnoStatus(errno, "enable", "io_uring");
  }
  bound_ = true;
  owner_ = std::this_thread::get_id();
  return absl::OkStatus();
}

void IoUringEngine::Submit(IoRequest* request) {
  METAL_CHECK(in_flight_ < depth_);
  ++in_flight_;
  request->retries = 0;
  Queue(request);
}

void IoUringEngine::Queue(IoRequest* request) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  METAL_CHECK(sqe != nullptr);  // the queue holds depth + 1, and no more are ever outstanding
  if (request->op == IoOp::kRead) {
    io_uring_prep_read(sqe, request->fd, request->buffer, request->length, request->offset);
  } else {
    io_uring_prep_write(sqe, request->fd, request->buffer, request->length, request->offset);
  }
  io_uring_sqe_set_data(sqe, request);
}

// A one-shot poll needs no buffer, so a ring that is torn down cannot write into freed memory.
void IoUringEngine::ArmWake() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  METAL_CHECK(sqe != nullptr);
  io_uring_prep_poll_add(sqe, signal_.fd(), POLLIN);
  io_uring_sqe_set_data(sqe, &signal_);
  wake_armed_ = true;
}

void IoUringEngine::Flush() {
  // An error stays with the queued entries and comes up in the next Reap.
  if (BindToThisThread().ok() && io_uring_sq_ready(&ring_) > 0) io_uring_submit(&ring_);
}

// Takes what is in the completion queue, without a system call. True when a request finished or a
// Wake arrived.
bool IoUringEngine::Harvest(std::vector<IoRequest*>& done) {
  bool news = false;
  unsigned head = 0;
  unsigned seen = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    ++seen;
    if (io_uring_cqe_get_data(cqe) == &signal_) {
      wake_armed_ = false;
      news |= signal_.Drain();
      continue;
    }
    auto* request = static_cast<IoRequest*>(io_uring_cqe_get_data(cqe));
    if (IsTransient(cqe->res) && request->retries < kMaxRetries) {
      ++request->retries;
      Queue(request);
      continue;
    }
    request->result = cqe->res;
    done.push_back(request);
    --in_flight_;
    news = true;
  }
  io_uring_cq_advance(&ring_, seen);
  return news;
}

// Submits what is queued and waits for one completion, at most `wait`.
absl::Status IoUringEngine::Enter(absl::Duration wait) {
  int result = 0;
  if (wait <= absl::ZeroDuration()) {
    // Completions of a DEFER_TASKRUN ring are posted only when it is asked for them.
    result = io_uring_submit_and_get_events(&ring_);
  } else {
    const timespec left = absl::ToTimespec(wait);
    __kernel_timespec kernel_left{left.tv_sec, left.tv_nsec};
    io_uring_cqe* cqe = nullptr;
    result = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &kernel_left, nullptr);
  }
  if (result == -EAGAIN || result == -EBUSY) {  // the kernel is short of memory: give it time
    if (++refusals_ > kMaxRefusals) return base::ErrnoStatus(-result, "submit to", "io_uring");
    absl::SleepFor(absl::Milliseconds(1));
    return absl::OkStatus();
  }
  refusals_ = 0;
  if (result >= 0 || result == -ETIME || result == -EINTR) return absl::OkStatus();
  return base::ErrnoStatus(-result, "submit to", "io_uring");
}

absl::Status IoUringEngine::Reap(std::vector<IoRequest*>& done, absl::Duration timeout) {
  METAL_RETURN_IF_ERROR(BindToThisThread());
  const Deadline deadline(timeout);
  if (Harvest(done)) {
    Flush();
    return absl::OkStatus();
  }
  for (;;) {
    if (!wake_armed_) ArmWake();
    const absl::Duration left = deadline.Remaining();
    METAL_RETURN_IF_ERROR(Enter(left));
    if (Harvest(done) || left <= absl::ZeroDuration()) return absl::OkStatus();
  }
}

}  // namespace metal::uring
