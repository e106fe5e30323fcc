// Sends one NVMe admin command through the kernel to a drive, and waits for the answer.
// How: by io_uring (IORING_OP_URING_CMD on the character device, Linux 5.19), where the waiting
// thread can be killed while the drive hangs; by ioctl where the kernel or its settings do not
// offer that: then the thread is stuck as long as the drive is. Needs CAP_SYS_ADMIN.
// Threading: thread-safe; blocks its caller until the drive answers or the driver gives up (60 s
// and the time of a reset by default). Call it on a thread that may be lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace metal::disk {

struct AdminCommand {
  uint8_t opcode = 0;
  uint32_t name_space = 0;
  uint32_t cdw10 = 0, cdw11 = 0, cdw12 = 0, cdw13 = 0;
  std::span<std::byte> data;  // that the drive fills; may be empty
};

struct AdminAnswer {
  int error = 0;             // errno: the kernel did not send the command, or lost the drive
  uint16_t nvme_status = 0;  // the drive's answer: SCT << 8 | SC, without flags
  bool by_ring = false;      // io_uring carried it
};

enum class PassthroughPath : uint8_t { kRingFirst, kIoctl };

// `device` is open on /dev/nvme<number>. The command's timeout is the driver's own: with a shorter
// one the kernel would abort the command and then reset the controller under a working drive.
AdminAnswer RunAdminCommand(int device, const AdminCommand& command,
                            PassthroughPath path = PassthroughPath::kRingFirst);

}  // namespace metal::disk
