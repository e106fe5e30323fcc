// A disk that really stalls: a filesystem on a loop device whose I/O the kernel holds.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "agent/disk/disk_monitor.h"
#include "agent/disk/probe_run.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/throttled_disk.h"

namespace metal::disk {
namespace {

using metal::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;

const observe::ProbeSection* FindProbe(const observe::NodeStatus& status, const std::string& role) {
  for (const auto& disk : status.disks) {
    for (const auto& probe : disk.probes) {
      if (probe.role == role) return &probe;
    }
  }
  return nullptr;
}

class RealStallTest : public ::testing::TestWithParam<std::string> {
 protected:
  RealStallTest() : disk_(GetParam()) {}

  // What is said of the file system's settings is not asked here.
  bool HasStalled() {
    const auto status = board_.Get();
    return std::ranges::any_of(
        status->faults, [](const auto& each) { return each.second.fault_class == "stalled"; });
  }
  std::string StateOf(const std::string& role) {
    const auto status = board_.Get();
    const observe::ProbeSection* probe = FindProbe(*status, role);
    return probe == nullptr ? "absent" : probe->state;
  }
  // Waits for a state; notes how long looks at the status took and the oldest section on the way.
  bool BecomesWithin(const std::string& role, const std::string& state, absl::Duration limit) {
    base::Clock& clock = base::RealClock();
    const base::MonotonicTime start = clock.Monotonic();
    while (clock.Monotonic() - start < limit) {
      const base::MonotonicTime before = clock.Monotonic();
      const auto status = board_.Get();
      const absl::Duration took = clock.Monotonic() - before;
      longest_get_ = std::max(longest_get_, took);
      ++gets_;
      if (took >= absl::Milliseconds(10)) ++slow_gets_;
      for (const auto& section : status->disks) {
        oldest_section_ = std::max(oldest_section_, clock.Now() - section.time.captured_at);
      }
      if (StateOf(role) == state) return true;
      clock.Sleep(absl::Milliseconds(10));
    }
    return false;
  }
  std::unique_ptr<DiskMonitor> MakeMonitor() {
    return std::make_unique<DiskMonitor>(DiskMonitorOptions{}, board_, events_, nullptr,
                                         base::RealClock());
  }

  metal::testing::ThrottledDisk disk_;
  metal::testing::TempDir other_;  // on another device
  observe::StatusBoard board_{base::RealClock()};
  metal::testing::RecordedEvents events_;
  absl::Duration longest_get_, oldest_section_;
  int gets_ = 0, slow_gets_ = 0;  // slow: 10 ms and more
};

TEST_P(RealStallTest, IsSeenWithinFiveSecondsAndClearsAndNothingElseNotices) {
  if (!disk_.reason().empty()) GTEST_SKIP() << disk_.reason();
  auto monitor = MakeMonitor();
  monitor->AddTarget("data", disk_.mount_point());
  monitor->AddTarget("repository", other_.path());
  ASSERT_TRUE(BecomesWithin("data", "healthy", absl::Seconds(20))) << StateOf("data");
  ASSERT_TRUE(BecomesWithin("repository", "healthy", absl::Seconds(20))) << StateOf("repository");
  ASSERT_TRUE(BecomesWithin("data", "healthy", absl::Seconds(1)));
  const auto status = board_.Get();
  ASSERT_FALSE(status->disks.empty());
  EXPECT_EQ(status->disks[0].stack.front(), disk_.loop_name());
  EXPECT_EQ(status->disks[0].filesystem, GetParam());

  ASSERT_TRUE(disk_.Hold(true));
  EXPECT_TRUE(BecomesWithin("data", "stalled", absl::Seconds(5))) << StateOf("data");
  EXPECT_THAT(events_.types(), Contains("disk.stalled"));
  EXPECT_TRUE(HasStalled());
  EXPECT_EQ(StateOf("repository"), "healthy");

  // A measurement on the stalled disk ends at its deadline; one on the other disk runs.
  observe::Progress progress(base::RealClock());
  EXPECT_THAT(
      RunStorageProbe(*monitor, {.role = "data", .timeout = absl::Milliseconds(300)}, progress),
      StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_OK(RunStorageProbe(*monitor, {.role = "repository", .reads = 20, .writes = 5}, progress));

  ASSERT_TRUE(disk_.Hold(false));
  EXPECT_TRUE(BecomesWithin("data", "healthy", absl::Seconds(20))) << StateOf("data");
  EXPECT_FALSE(HasStalled());
  EXPECT_THAT(events_.types(), Contains("disk.recovered"));
  // Nobody who looks waits for the disk; whoever has no processor for a moment is no such case.
  EXPECT_LE(slow_gets_, gets_ / 50) << gets_ << " looks";
  EXPECT_LT(longest_get_, absl::Seconds(1));
  EXPECT_LT(oldest_section_, absl::Seconds(4));
}

TEST_P(RealStallTest, TheMonitorIsDestroyedWithinASecondWhileTheDiskStalls) {
  if (!disk_.reason().empty()) GTEST_SKIP() << disk_.reason();
  auto monitor = MakeMonitor();
  monitor->AddTarget("data", disk_.mount_point());
  ASSERT_TRUE(BecomesWithin("data", "healthy", absl::Seconds(20))) << StateOf("data");
  ASSERT_TRUE(disk_.Hold(true));
  ASSERT_TRUE(BecomesWithin("data", "stalled", absl::Seconds(5))) << StateOf("data");
  const base::MonotonicTime start = base::RealClock().Monotonic();
  monitor.reset();
  EXPECT_LT(base::RealClock().Monotonic() - start, absl::Seconds(1));
  disk_.Hold(false);  // the prober that was left behind ends now, and the disk can be unmounted
}

TEST_P(RealStallTest, AProcessWithStuckProbesDiesAtOnce) {
  if (!disk_.reason().empty()) GTEST_SKIP() << disk_.reason();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto monitor = MakeMonitor();
    monitor->AddTarget("data", disk_.mount_point());
    const bool healthy = BecomesWithin("data", "healthy", absl::Seconds(20));
    const char text = healthy ? 'y' : 'n';
    if (write(ready[1], &text, 1) != 1) _exit(1);
    const bool stalled = BecomesWithin("data", "stalled", absl::Seconds(30));
    base::RealClock().Sleep(absl::Seconds(7));  // past a journal commit
    const char again = stalled ? 'y' : 'n';
    if (write(ready[1], &again, 1) != 1) _exit(1);
    pause();
  }
  char text = 0;
  ASSERT_EQ(read(ready[0], &text, 1), 1);
  EXPECT_EQ(text, 'y');
  ASSERT_TRUE(disk_.Hold(true));
  ASSERT_EQ(read(ready[0], &text, 1), 1);
  EXPECT_EQ(text, 'y');
  const base::MonotonicTime start = base::RealClock().Monotonic();
  kill(child, SIGKILL);
  while (waitpid(child, nullptr, WNOHANG) == 0) {
    base::RealClock().Sleep(absl::Milliseconds(5));
    if (base::RealClock().Monotonic() - start < absl::Seconds(1)) continue;
    ADD_FAILURE() << "the process is held by its disk";
    disk_.Hold(false);
    waitpid(child, nullptr, 0);
    break;
  }
  close(ready[0]);
  close(ready[1]);
}

INSTANTIATE_TEST_SUITE_P(Filesystems, RealStallTest, ::testing::Values("ext4", "xfs"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace metal::disk
