// File systems on loop devices that really break: what the kernel says of it, on all its channels.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

#include "agent/base/mutex.h"
#include "agent/disk/sources/filesystem.h"
#include "agent/disk/sources/kernel_log.h"
#include "agent/disk/sources/kernel_sources.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/refusing_privileges.h"
#include "tests/unit/disk/throttled_disk.h"

namespace metal::disk {
namespace {

// Does in this process, which is root, what the helper does in its own.
class LocalHelper final : public metal::testing::RefusingPrivileges {
 public:
  absl::StatusOr<base::UniqueFd> TakeKernelLog() override { return OpenKernelLog(); }
  absl::StatusOr<base::UniqueFd> WatchFilesystem(unsigned major, unsigned minor,
                                                 absl::Duration) override {
    return WatchFilesystemErrors(SysRoots(), major, minor);
  }
  absl::Status SetXfsRetries(const std::string& device, const XfsRetryLimits& limits,
                             absl::Duration) override {
    return disk::SetXfsRetries(SysRoots(), device, limits);
  }
};

class RealFilesystemTest : public ::testing::Test {
 protected:
  // False: `reason_` says what is missing.
  bool Start(const std::string& filesystem, std::optional<XfsRetryLimits> xfs_retries = {}) {
    disk_ = std::make_unique<metal::testing::ThrottledDisk>(filesystem);
    reason_ = disk_->reason();
    const absl::Status log = OpenKernelLog().status();
    if (reason_.empty() && !log.ok()) reason_ = log.ToString();
    if (!reason_.empty()) return false;
    KernelSourcesOptions options;
    options.look_interval = absl::Milliseconds(100);
    options.sample_interval = absl::Milliseconds(50);
    options.helper = &helper_;
    options.xfs_retries = xfs_retries;
    sources_ = std::make_unique<KernelSources>(
        std::move(options), [this](Evidence evidence) { Take(std::move(evidence)); }, events_,
        base::RealClock());
    auto stack = ReadStorageStack(SysRoots(), disk_->mount_point());
    EXPECT_TRUE(stack.ok()) << stack.status();
    if (stack.ok()) sources_->Watch({*stack});
    return true;
  }
  ~RealFilesystemTest() override { sources_.reset(); }

  void Take(Evidence evidence) {
    base::MutexLock lock(mutex_);
    seen_.push_back(std::move(evidence));
    changed_.NotifyAll();
  }
  bool Await(FaultClass fault_class, Witness witness, std::optional<int> error = {},
             absl::Duration limit = absl::Seconds(20)) {
    base::MutexLock lock(mutex_);
    return changed_.WaitFor(mutex_, limit, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return std::ranges::any_of(seen_, [&](const Evidence& evidence) {
        return evidence.fault_class == fault_class && evidence.witness == witness &&
               !evidence.clears && (!error || evidence.error_number == error);
      });
    });
  }
  void Remount(unsigned long flags, const char* options) {
    ASSERT_EQ(mount(nullptr, disk_->mount_point().c_str(), nullptr, MS_REMOUNT | flags, options), 0)
        << strerror(errno);
  }

  LocalHelper helper_;
  metal::testing::RecordedEvents events_;
  std::unique_ptr<metal::testing::ThrottledDisk> disk_;
  std::string reason_;
  base::Mutex mutex_;
  base::CondVar changed_;
  std::vector<Evidence> seen_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<KernelSources> sources_;
};

TEST_F(RealFilesystemTest, Ext4ThatAbortsIsToldByItsEventAndTheKernelsLog) {
  if (!Start("ext4")) GTEST_SKIP() << reason_;
  Remount(0, "abort");
  EXPECT_TRUE(Await(FaultClass::kFilesystemShutdown, Witness::kKernelLog));
  EXPECT_TRUE(Await(FaultClass::kFilesystemShutdown, Witness::kFilesystem, ESHUTDOWN));
  EXPECT_TRUE(events_.Await("disk.kernel_line"));
}

TEST_F(RealFilesystemTest, XfsThatShutsDownIsToldByTheKernelsLog) {
  if (!Start("xfs")) GTEST_SKIP() << reason_;
  EXPECT_TRUE(Await(FaultClass::kMetadataRetry, Witness::kFilesystem));
  base::UniqueFd root(open(disk_->mount_point().c_str(), O_RDONLY | O_CLOEXEC));
  constexpr unsigned long kGoingDown = _IOR('X', 125, uint32_t);
  uint32_t without_flushing_the_log = 2;
  ASSERT_EQ(ioctl(root.get(), kGoingDown, &without_flushing_the_log), 0) << strerror(errno);
  root.Reset();
  EXPECT_TRUE(Await(FaultClass::kFilesystemShutdown, Witness::kKernelLog));
}

TEST_F(RealFilesystemTest, XfsGetsTheLimitsThatAreConfigured) {
  if (!Start("xfs", XfsRetryLimits{.max_retries = 2, .timeout = absl::Seconds(7)})) {
    GTEST_SKIP() << reason_;
  }
  const auto retries = ReadXfsRetries(SysRoots(), disk_->loop_name());
  ASSERT_EQ(retries.count("EIO"), 1u);
  EXPECT_EQ(retries.at("EIO").max_retries, 2);
  EXPECT_EQ(retries.at("EIO").timeout_seconds, 7);
  EXPECT_EQ(retries.at("default").max_retries, 2);
  EXPECT_EQ(retries.at("ENOSPC").max_retries, -1);
  EXPECT_EQ(sources_->unsupported().count("xfs_retries:" + disk_->loop_name()), 0u);
  // Once it was seen to become read-only it has been looked at, and nothing was said of retries.
  bool seen = false;
  for (int i = 0; i < 40 && !seen; ++i) {
    Remount(i % 2 == 0 ? 0 : MS_RDONLY, "");
    seen = Await(FaultClass::kFilesystemShutdown, Witness::kFilesystem, {}, absl::Seconds(0.5));
  }
  EXPECT_TRUE(seen);
  EXPECT_FALSE(Await(FaultClass::kMetadataRetry, Witness::kFilesystem, {}, absl::ZeroDuration()));
}

}  // namespace
}  // namespace metal::disk
