#include "agent/disk/sources/kernel_sources.h"

#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "agent/base/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/refusing_privileges.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::Key;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kIdle[] = "100 0 800 50 200 0 1600 70 0 90 120 0 0 0 0 0 0\n";

// A machine with one NVMe drive, whose kernel log is a socket: each message is a record.
class KernelSourcesTest : public ::testing::Test {
 protected:
  KernelSourcesTest() {
    dir_.Write("sys/class/block/nvme7n1/stat", kIdle);
    dir_.Write("sys/class/block/nvme7n1/inflight", "0 0\n");
    dir_.Write("sys/class/block/nvme7n1/size", "2048\n");
    dir_.Write("sys/class/block/nvme7n1/serial", "S1\n");
    dir_.Write("sys/class/nvme/nvme7/state", "live\n");
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    kernel_ = base::UniqueFd(ends[0]);
    KernelSourcesOptions options;
    options.roots = {.proc = dir_.File("proc"), .sys = dir_.File("sys"), .dev = dir_.File("dev")};
    options.kernel_log = base::UniqueFd(ends[1]);
    options.sample_interval = absl::Milliseconds(20);
    options.look_interval = absl::Hours(1);
    options.stalled_after = absl::Milliseconds(60);
    options.lines = [this](const KernelLine& line) {
      base::MutexLock lock(mutex_);
      lines_.push_back(line.text);
      changed_.NotifyAll();
    };
    sources_ = std::make_unique<KernelSources>(
        std::move(options), [this](Evidence evidence) { Take(std::move(evidence)); }, events_,
        base::RealClock());
    sources_->Watch({Stack()});
  }

  static StorageStack Stack() {
    StorageStack stack;
    stack.path = "/data/pg";
    stack.layers = {"nvme7n1p1", "nvme7n1"};
    stack.disks.resize(1);
    stack.disks[0].name = "nvme7n1";
    stack.disks[0].nvme_controller = "nvme7";
    stack.disks[0].serial = "S1";
    return stack;
  }
  void Kernel(int sequence, const std::string& text) {
    const std::string record = "3," + std::to_string(sequence) + ",1,-;" + text + "\n";
    EXPECT_EQ(write(kernel_.get(), record.data(), record.size()),
              static_cast<ssize_t>(record.size()));
  }
  void Take(Evidence evidence) {
    base::MutexLock lock(mutex_);
    seen_.push_back(std::move(evidence));
    changed_.NotifyAll();
  }
  bool Await(FaultClass fault_class, Witness witness, bool clears = false) {
    base::MutexLock lock(mutex_);
    return changed_.WaitFor(mutex_, absl::Seconds(20), [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return std::ranges::any_of(seen_, [&](const Evidence& evidence) {
        return evidence.fault_class == fault_class && evidence.witness == witness &&
               evidence.clears == clears && evidence.device == "nvme7n1";
      });
    });
  }

  metal::testing::TempDir dir_;
  metal::testing::RecordedEvents events_;
  base::Mutex mutex_;
  base::CondVar changed_;
  std::vector<Evidence> seen_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mutex_);
  base::UniqueFd kernel_;
  std::unique_ptr<KernelSources> sources_;
};

TEST_F(KernelSourcesTest, TheKernelsLineBecomesEvidenceAndAnEvent) {
  Kernel(1, "XFS (nvme7n1p1): Filesystem has been shut down due to log error (0x2).");
  EXPECT_TRUE(Await(FaultClass::kFilesystemShutdown, Witness::kKernelLog));
  EXPECT_TRUE(events_.Await("disk.kernel_line"));
  EXPECT_THAT(sources_->unsupported(), Not(Contains(Key("kernel_log"))));
}

TEST_F(KernelSourcesTest, TheSixthLineOfAMinuteIsNoEventAndIsNotLost) {
  const std::string line = "nvme nvme7: I/O 1 QID 2 timeout, reset controller";
  for (int i = 0; i < 6; ++i) Kernel(i, line);
  base::MutexLock lock(mutex_);
  EXPECT_TRUE(changed_.WaitFor(mutex_, absl::Seconds(20),
                               [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !lines_.empty(); }));
  EXPECT_EQ(lines_, std::vector<std::string>{line});
}

TEST_F(KernelSourcesTest, WhatTheLogSaysIsLookedAtInSysfsAtOnce) {
  fs::remove_all(dir_.File("sys/class/block/nvme7n1"));
  Kernel(1, "nvme nvme7: Removing after probe failure status: -19");
  EXPECT_TRUE(Await(FaultClass::kGone, Witness::kKernelLog));
  EXPECT_TRUE(Await(FaultClass::kGone, Witness::kSysfs));
}

TEST_F(KernelSourcesTest, AFrozenDiskIsStalledAndComesBack) {
  dir_.Write("sys/class/block/nvme7n1/inflight", "1 2\n");
  EXPECT_TRUE(Await(FaultClass::kStalled, Witness::kSysfs));
  dir_.Write("sys/class/block/nvme7n1/inflight", "0 0\n");
  EXPECT_TRUE(Await(FaultClass::kStalled, Witness::kSysfs, true));
  EXPECT_TRUE(sources_->ActivityOf("nvme7n1").has_value());
  EXPECT_FALSE(sources_->ActivityOf("sda").has_value());
}

TEST_F(KernelSourcesTest, ADiskThatSysfsShowsNoMoreStaysWatched) {
  StorageStack without = Stack();
  without.layers.clear();
  without.disks.clear();
  sources_->Watch({without});
  Kernel(1, "nvme nvme7: Removing after probe failure status: -19");
  EXPECT_TRUE(Await(FaultClass::kGone, Witness::kKernelLog));
  fs::remove_all(dir_.File("sys/class/block/nvme7n1"));
  EXPECT_TRUE(Await(FaultClass::kGone, Witness::kSysfs));
}

TEST_F(KernelSourcesTest, WhatAFilesystemThatIsNoMoreSaidIsTakenBack) {
  const std::string retries = "sys/fs/xfs/nvme7n1p1/error/metadata/EIO/";
  dir_.Write(retries + "max_retries", "-1\n");
  dir_.Write(retries + "retry_timeout_seconds", "-1\n");
  dir_.Write("proc/self/mountinfo", "30 22 259:1 / /data rw - xfs /dev/nvme7n1p1 rw\n");
  StorageStack stack = Stack();
  stack.mount.major = 259;
  stack.mount.minor = 1;
  stack.mount.filesystem = "xfs";
  sources_->Watch({stack});
  Kernel(1, "XFS (nvme7n1p1): Filesystem has been shut down due to log error (0x2).");
  EXPECT_TRUE(Await(FaultClass::kMetadataRetry, Witness::kFilesystem));
  fs::remove_all(dir_.File("sys/fs/xfs"));
  stack.mount.filesystem = "ext4";  // made anew
  sources_->Watch({stack});
  Kernel(2, "XFS (nvme7n1p1): Filesystem has been shut down due to log error (0x2).");
  EXPECT_TRUE(Await(FaultClass::kMetadataRetry, Witness::kFilesystem, /*clears=*/true));
}

TEST_F(KernelSourcesTest, WhatIsNotWatchedAnyMoreIsSilent) {
  sources_->Watch({});
  Kernel(1, "XFS (nvme7n1p1): Filesystem has been shut down due to log error (0x2).");
  sources_->Watch({Stack()});
  EXPECT_FALSE(sources_->ActivityOf("sda").has_value());
  Kernel(2, "nvme nvme7: Abort status: 0x0");
  EXPECT_TRUE(Await(FaultClass::kControllerReset, Witness::kKernelLog));
}

TEST_F(KernelSourcesTest, ALogThatEndsIsReported) {
  kernel_.Reset();
  for (int i = 0; i < 4000 && !sources_->unsupported().contains("kernel_log"); ++i) {
    base::RealClock().Sleep(absl::Milliseconds(5));
  }
  EXPECT_THAT(sources_->unsupported(), Contains(Key("kernel_log")));
}

TEST(KernelSourcesWithoutLogTest, TheReasonIsTold) {
  metal::testing::RecordedEvents events;
  KernelSources sources(
      KernelSourcesOptions{}, [](Evidence) {}, events, base::RealClock());
  EXPECT_THAT(sources.unsupported(), Contains(Key("kernel_log")));
}

// Counts how often XFS was given its limits.
class CountingHelper final : public metal::testing::RefusingPrivileges {
 public:
  absl::Status SetXfsRetries(const std::string& device, const XfsRetryLimits&,
                             absl::Duration) override {
    limited.push_back(device);
    return absl::OkStatus();
  }
  std::vector<std::string> limited;
};

TEST(KernelSourcesOfAMountTest, WhatIsMountedAgainIsSetUpAgain) {
  metal::testing::RecordedEvents events;
  CountingHelper helper;
  KernelSourcesOptions options;
  options.helper = &helper;
  options.xfs_retries = XfsRetryLimits{};
  KernelSources sources(
      std::move(options), [](Evidence) {}, events, base::RealClock());
  StorageStack stack;
  stack.layers = {"nvme7n1p1", "nvme7n1"};
  stack.disks.resize(1);
  stack.disks[0].name = "nvme7n1";
  stack.mount.id = 36;
  stack.mount.major = 259;
  stack.mount.minor = 1;
  stack.mount.filesystem = "xfs";
  StorageStack elsewhere = stack;  // the same file system in another place
  elsewhere.mount.id = 37;
  sources.Watch({stack, elsewhere});
  sources.Watch({stack, elsewhere});
  EXPECT_THAT(helper.limited, SizeIs(1));
  stack.mount.id = 41;
  sources.Watch({stack});
  EXPECT_THAT(helper.limited, SizeIs(2));
}

}  // namespace
}  // namespace metal::disk
