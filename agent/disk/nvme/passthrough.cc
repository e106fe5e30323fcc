#include "agent/disk/nvme/passthrough.h"

#include <liburing.h>
#include <linux/nvme_ioctl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "agent/base/check.h"

namespace metal::disk {
namespace {

constexpr size_t kBigSqeSize = 128;
constexpr int kStatusBits = 0x7ff;  // without "more" and "do not retry"

AdminAnswer AnswerOf(int result) {
  AdminAnswer answer;
  if (result < 0) {
    answer.error = -result;
  } else {
    answer.nvme_status = static_cast<uint16_t>(result & kStatusBits);
  }
  return answer;
}

// What the kernel says before a command reaches the drive, when it has no passthrough by io_uring:
// for this device, this ring or this operation.
bool IsNoRingAnswer(int result) {
  return result == -EOPNOTSUPP || result == -EINVAL || result == -ENOTTY || result == -ENOSYS;
}

// The command as the kernel takes it, by either way: both structures name these fields alike.
template <typename Kernel>
Kernel Passed(const AdminCommand& command) {
  Kernel nvme{};
  nvme.opcode = command.opcode;
  nvme.nsid = command.name_space;
  nvme.addr = reinterpret_cast<uint64_t>(command.data.data());
  nvme.data_len = static_cast<uint32_t>(command.data.size());
  nvme.cdw10 = command.cdw10;
  nvme.cdw11 = command.cdw11;
  nvme.cdw12 = command.cdw12;
  nvme.cdw13 = command.cdw13;
  return nvme;
}

void Prepare(io_uring_sqe* sqe, int device, const AdminCommand& command) {
  std::memset(sqe, 0, kBigSqeSize);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = device;
  sqe->cmd_op = NVME_URING_CMD_ADMIN;
  const auto nvme = Passed<nvme_uring_cmd>(command);
  static_assert(sizeof(nvme) <= kBigSqeSize - offsetof(io_uring_sqe, cmd));
  std::memcpy(sqe->cmd, &nvme, sizeof(nvme));
}

// nullopt: io_uring cannot carry it, and nothing was sent.
std::optional<AdminAnswer> RunByRing(int device, const AdminCommand& command) {
  io_uring ring{};
  io_uring_params params{};
  params.flags = IORING_SETUP_SQE128 | IORING_SETUP_CQE32;
  if (io_uring_queue_init_params(1, &ring, &params) < 0) return std::nullopt;
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  METAL_CHECK(sqe != nullptr);  // the ring is new and has room for one
  Prepare(sqe, device, command);
  int result = io_uring_submit(&ring);
  if (result == 1) {
    io_uring_cqe* cqe = nullptr;
    do {
      result = io_uring_wait_cqe(&ring, &cqe);
    } while (result == -EINTR || result == -EAGAIN);
    // Without the completion the kernel may still write to the caller's buffer.
    METAL_CHECK(result == 0);
    result = cqe->res;
    io_uring_cqe_seen(&ring, cqe);
  } else if (result >= 0) {
    result = -EOPNOTSUPP;
  }
  io_uring_queue_exit(&ring);
  if (IsNoRingAnswer(result)) return std::nullopt;
  AdminAnswer answer = AnswerOf(result);
  answer.by_ring = true;
  return answer;
}

AdminAnswer RunByIoctl(int device, const AdminCommand& command) {
  auto nvme = Passed<nvme_admin_cmd>(command);
  const int result = ioctl(device, NVME_IOCTL_ADMIN_CMD, &nvme);
  return AnswerOf(result < 0 ? -errno : result);
}

}  // namespace

AdminAnswer RunAdminCommand(int device, const AdminCommand& command, PassthroughPath path) {
  if (path == PassthroughPath::kRingFirst) {
    if (const auto answer = RunByRing(device, command)) return *answer;
  }
  return RunByIoctl(device, command);
}

}  // namespace metal::disk
