#include "agent/disk/nvme/passthrough.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "agent/base/fd.h"
#include "agent/disk/nvme/smart_log.h"
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

}  // namespace
}  // namespace metal::disk
