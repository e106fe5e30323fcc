// The whole way to a drive: helper, passthrough, decoders. Runs in guests of the lab, where the
// drive is an emulated one: a command that is refused raises the error count of a real one.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "agent/base/fd.h"
#include "agent/disk/nvme/log_watch.h"
#include "agent/disk/nvme/passthrough.h"
#include "gtest/gtest.h"

namespace metal::disk {
namespace {

using Page = std::vector<std::byte>;

class RealDriveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device_ = base::UniqueFd(open("/dev/nvme0", O_RDONLY | O_CLOEXEC));
    const bool emulated = device_.valid() && Model().starts_with("QEMU");
    if (!emulated) GTEST_SKIP() << "needs root and an emulated NVMe drive";
  }

  std::string Model() {
    Page page(kIdentifySize);
    AdminCommand command;
    command.opcode = 0x06;
    command.cdw10 = 1;
    command.data = page;
    RunAdminCommand(device_.get(), command, PassthroughPath::kIoctl);
    const auto id = DecodeIdentifyController(page);
    return id.ok() ? id->model : "";
  }

  absl::StatusOr<SmartLog> Smart(PassthroughPath path, bool& by_ring) {
    Page page(kSmartLogSize);
    AdminCommand command;
    command.opcode = 0x02;
    command.name_space = 0xffffffff;
    command.cdw10 = kSmartLogId | ((kSmartLogSize / 4 - 1) << 16);
    command.data = page;
    const AdminAnswer answer = RunAdminCommand(device_.get(), command, path);
    EXPECT_EQ(answer.error, 0);
    EXPECT_EQ(answer.nvme_status, 0);
    by_ring = answer.by_ring;
    return DecodeSmartLog(page);
  }

  base::UniqueFd device_;
};

TEST_F(RealDriveTest, RingAndIoctlReadTheSame) {
  bool by_ring = false, by_ring_again = true;
  const auto smart = Smart(PassthroughPath::kRingFirst, by_ring);
  const auto again = Smart(PassthroughPath::kIoctl, by_ring_again);
  EXPECT_TRUE(by_ring);  // Linux 5.19
  EXPECT_FALSE(by_ring_again);
  ASSERT_TRUE(smart.ok() && again.ok());
  EXPECT_EQ(smart->temperature_celsius, again->temperature_celsius);
  EXPECT_EQ(smart->power_cycles, again->power_cycles);
  EXPECT_EQ(smart->error_log_entries, again->error_log_entries);
}

TEST_F(RealDriveTest, ARefusedCommandHasTheSameStatusOnBothPaths) {
  Page page(kIdentifySize);
  AdminCommand command;
  command.opcode = 0x06;
  command.name_space = 0xfffffff0;  // no such namespace
  command.data = page;
  const AdminAnswer ring = RunAdminCommand(device_.get(), command);
  const AdminAnswer ioctl = RunAdminCommand(device_.get(), command, PassthroughPath::kIoctl);
  EXPECT_EQ(ring.error, 0);
  EXPECT_NE(ring.nvme_status, 0);
  EXPECT_EQ(ring.nvme_status, ioctl.nvme_status);
}

// Watches the drive through a helper, in a process that may fork one. 0, or what was wrong.
int WatchThroughTheHelper() {
  auto helper = StartPrivilegedHelper();
  if (!helper.ok()) return 1;
  std::vector<Evidence> said;
  LogWatch watch(helper->get(), base::RealClock(),
                 [&](Evidence e) { said.push_back(std::move(e)); },
                 {.time = absl::Seconds(10),
                  .vendor_interval = absl::ZeroDuration(),
                  .self_test_interval = absl::ZeroDuration(),
                  .identity_interval = absl::ZeroDuration()});
  const auto disk = ReadDiskInfo({}, "nvme0n1");
  if (!disk.ok()) return 2;
  const WatchedDrive drive = WatchedDriveOf({}, *disk);
  if (drive.name_space != 1 || drive.controller != "nvme0") return 3;
  watch.Refresh(drive);
  const DriveReport first = watch.Reports().at("nvme0n1");
  if (!first.unavailable.empty()) return 4;
  if (!first.logs.controller) return 5;
  if (first.logs.controller->serial != disk->serial) return 10;
  if (!first.logs.name_space || !first.logs.errors) return 6;
  const uint64_t bytes = first.logs.name_space->size_blocks * first.logs.name_space->block_size;
  if (bytes != disk->size_bytes) return 7;
  for (int i = 0; i < 50; ++i) watch.Refresh(drive);
  const DriveReport last = watch.Reports().at("nvme0n1");
  if (last.logs.smart->error_log_entries != first.logs.smart->error_log_entries) return 8;
  for (const Evidence& evidence : said) {  // what an emulated drive says of its cache
    if (evidence.fault_class != FaultClass::kTornWrites) return 9;
  }
  return 0;
}

TEST_F(RealDriveTest, WatchingReadsWhatTheKernelSaysAndRaisesNoErrorCount) {
  const pid_t child = fork();
  if (child == 0) _exit(WatchThroughTheHelper());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

}  // namespace
}  // namespace metal::disk
