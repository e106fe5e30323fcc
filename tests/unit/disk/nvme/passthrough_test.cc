#include "agent/disk/nvme/passthrough.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "agent/base/fd.h"
#include "agent/disk/nvme/identify.h"
#include "agent/disk/nvme/smart_log.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::disk {
namespace {

using metal::testing::Page;

AdminCommand SmartCommand(Page& page) {
  AdminCommand command;
  command.opcode = 0x02;
  command.name_space = 0xffffffff;
  command.cdw10 = kSmartLogId | ((kSmartLogSize / 4 - 1) << 16);
  page.assign(kSmartLogSize, std::byte{0xaa});
  command.data = page;
  return command;
}

TEST(PassthroughTest, ADeviceWithoutPassthroughIsToldByTheIoctl) {
  const base::UniqueFd device(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(device.valid());
  Page page;
  for (const PassthroughPath path : {PassthroughPath::kRingFirst, PassthroughPath::kIoctl}) {
    const AdminAnswer answer = RunAdminCommand(device.get(), SmartCommand(page), path);
    EXPECT_EQ(answer.error, ENOTTY);
    EXPECT_EQ(answer.nvme_status, 0);
    EXPECT_FALSE(answer.by_ring);
    EXPECT_EQ(page, Page(kSmartLogSize, std::byte{0xaa}));
  }
}

// The kernel's null device takes commands of io_uring and does nothing: the ring with long entries
// was made, and the command was answered. Older kernels refuse, and the ioctl answers.
TEST(PassthroughTest, ACommandGoesThroughTheRing) {
  const base::UniqueFd device(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(device.valid());
  Page page;
  const AdminAnswer answer = RunAdminCommand(device.get(), SmartCommand(page));
  EXPECT_EQ(answer.error, answer.by_ring ? 0 : ENOTTY);
  EXPECT_EQ(RunAdminCommand(device.get(), SmartCommand(page), PassthroughPath::kIoctl).error,
            ENOTTY);
}

TEST(PassthroughTest, AClosedDeviceIsAnError) {
  Page page;
  EXPECT_EQ(RunAdminCommand(-1, SmartCommand(page)).error, EBADF);
}

// The first drive of the machine when it is an emulated one: a command that is refused raises the
// error count of a real one.
base::UniqueFd OpenEmulatedDrive() {
  base::UniqueFd device(open("/dev/nvme0", O_RDONLY | O_CLOEXEC));
  if (!device.valid()) return device;
  Page page(kIdentifySize);
  AdminCommand command;
  command.opcode = 0x06;
  command.cdw10 = 1;
  command.data = page;
  RunAdminCommand(device.get(), command, PassthroughPath::kIoctl);
  const auto id = DecodeIdentifyController(page);
  return id.ok() && id->model.starts_with("QEMU") ? std::move(device) : base::UniqueFd();
}

TEST(RealDriveTest, RingAndIoctlReadTheSame) {
  const base::UniqueFd device = OpenEmulatedDrive();
  if (!device.valid()) GTEST_SKIP() << "needs root and an emulated NVMe drive";
  Page by_ring, by_ioctl;
  const AdminAnswer ring = RunAdminCommand(device.get(), SmartCommand(by_ring));
  ASSERT_EQ(ring.error, 0);
  ASSERT_EQ(ring.nvme_status, 0);
  EXPECT_TRUE(ring.by_ring);  // Linux 5.19
  ASSERT_EQ(RunAdminCommand(device.get(), SmartCommand(by_ioctl), PassthroughPath::kIoctl).error,
            0);
  const auto smart = DecodeSmartLog(by_ring), again = DecodeSmartLog(by_ioctl);
  ASSERT_TRUE(smart.ok() && again.ok());
  EXPECT_EQ(smart->power_cycles, again->power_cycles);
  EXPECT_EQ(smart->media_errors, again->media_errors);
  EXPECT_EQ(smart->error_log_entries, again->error_log_entries);
}

TEST(RealDriveTest, ARefusedCommandHasTheSameStatusOnBothPaths) {
  const base::UniqueFd device = OpenEmulatedDrive();
  if (!device.valid()) GTEST_SKIP() << "needs root and an emulated NVMe drive";
  Page page(kIdentifySize);
  AdminCommand command;
  command.opcode = 0x06;
  command.name_space = 0xfffffff0;  // no such namespace
  command.data = page;
  const AdminAnswer ring = RunAdminCommand(device.get(), command);
  const AdminAnswer ioctl = RunAdminCommand(device.get(), command, PassthroughPath::kIoctl);
  EXPECT_EQ(ring.error, 0);
  EXPECT_NE(ring.nvme_status, 0);
  EXPECT_EQ(ring.nvme_status, ioctl.nvme_status);
}

}  // namespace
}  // namespace metal::disk
