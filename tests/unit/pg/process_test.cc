#include "agent/pg/process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/pg/fake_postmaster.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ProcessTest : public ::testing::Test {
 protected:
  PostmasterPlace place() { return {cluster_.data_dir(), cluster_.bin_dir()}; }
  LaunchOptions Options() {
    LaunchOptions options;
    options.place = place();
    options.program = cluster_.bin_dir() + "/postgres";
    options.log_path = cluster_.log_path();
    options.port = cluster_.port();
    options.socket_dir = cluster_.socket_dir();
    options.lock_deadline = base::RealClock().Monotonic() + absl::Seconds(2);
    return options;
  }
  std::shared_ptr<const Postmaster> Launch() {
    return *LaunchPostmaster(Options(), base::RealClock());
  }
  absl::StatusOr<StopResult> Stop(const Postmaster& process, StopOptions options) {
    return StopPostmaster(process, place(), options, base::RealClock());
  }

  FakeCluster cluster_;
};

TEST_F(ProcessTest, ALaunchedPostmasterIsFoundAgainAndIsNobodysChild) {
  const auto process = Launch();
  ASSERT_OK_AND_ASSIGN(const auto found, FindPostmaster(place()));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->process->pid(), process->pid());
  EXPECT_THAT(ListServerProcesses(place()), ElementsAre(process->pid()));
  EXPECT_THAT(LaunchPostmaster(Options(), base::RealClock()),
              StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_OK(Stop(*process, {}));
  EXPECT_FALSE(process->alive());
  ASSERT_OK_AND_ASSIGN(const auto gone, FindPostmaster(place()));
  EXPECT_FALSE(gone.has_value());
}

TEST_F(ProcessTest, APidFileOfAnotherProcessIsNoPostmasterAndStays) {
  // A reused pid: alive, started at another time, another program.
  const std::string text = std::to_string(getpid()) + "\n" + cluster_.data_dir() + "\n1000\n";
  ASSERT_OK(base::WriteFileDurably(cluster_.data_dir() + "/postmaster.pid", text));
  ASSERT_OK_AND_ASSIGN(const auto found, FindPostmaster(place()));
  EXPECT_FALSE(found.has_value());
  EXPECT_EQ(*base::ReadFile(cluster_.data_dir() + "/postmaster.pid"), text);
}

TEST_F(ProcessTest, AStartFailureCarriesTheServersLastWords) {
  cluster_.Behave("fail could not open shared memory");
  const auto failed = LaunchPostmaster(Options(), base::RealClock());
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("FATAL: could not open shared memory")));
  EXPECT_EQ(base::GetReason(failed.status())->reason, "POSTGRES_START_FAILED");
  cluster_.Behave("fail could not write: No space left on device");
  EXPECT_THAT(LaunchPostmaster(Options(), base::RealClock()),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(ProcessTest, AHeldLockFileIsRetriedUntilThePatienceEnds) {
  cluster_.Behave("fail lock file \"postmaster.pid\" already exists");
  const base::MonotonicTime start = base::RealClock().Monotonic();
  EXPECT_THAT(LaunchPostmaster(Options(), base::RealClock()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("already exists")));
  EXPECT_GE(base::RealClock().Monotonic() - start, absl::Seconds(2));
}

TEST_F(ProcessTest, TheCheckAndTheLaunchShareOnePatience) {
  cluster_.Behave("fail lock file \"postmaster.pid\" already exists");
  LaunchOptions options = Options();
  options.lock_deadline = base::RealClock().Monotonic();
  EXPECT_FALSE(LaunchPostmaster(options, base::RealClock()).ok());
  const std::string log = *base::ReadFile(cluster_.log_path());
  EXPECT_EQ(log.find("FATAL"), log.rfind("FATAL")) << "tried again:\n" << log;
}

TEST_F(ProcessTest, OrphansAreEndedAndACancelledWaitForThemSaysSo) {
  LaunchOptions options = Options();
  options.port = FakeCluster::FreePort();
  options.listen_addresses = "127.0.0.1";
  cluster_.Behave(fmt::format("child {} 60000", options.port));
  const auto process = Launch();
  ASSERT_OK(process->Signal(SIGKILL));
  ASSERT_TRUE(process->WaitExit(absl::Seconds(10)));
  options.cancelled = [] { return true; };
  EXPECT_THAT(CheckLaunchable(options, base::RealClock()), StatusIs(absl::StatusCode::kCancelled));
  options.cancelled = nullptr;
  options.lock_deadline = base::RealClock().Monotonic() + absl::Minutes(1);
  EXPECT_OK(CheckLaunchable(options, base::RealClock()));
}

TEST_F(ProcessTest, ChildrenOfALivingServerWithoutItsPidFileAreNoOrphans) {
  LaunchOptions options = Options();
  options.port = FakeCluster::FreePort();
  options.listen_addresses = "127.0.0.1";
  options.lock_deadline = base::RealClock().Monotonic() + absl::Hours(1);
  cluster_.Behave(fmt::format("child {} 60000", options.port));
  const auto process = Launch();
  const std::vector<pid_t> before = ListServerProcesses(place());
  ASSERT_EQ(before.size(), 2u);
  ASSERT_EQ(unlink((cluster_.data_dir() + "/postmaster.pid").c_str()), 0);
  const absl::Status refused = CheckLaunchable(options, base::RealClock());
  EXPECT_EQ(base::GetReason(refused)->reason, "PORT_IN_USE");
  EXPECT_EQ(ListServerProcesses(place()), before);
}

// Found and ended by /proc alone: the data directory may be on a disk that hangs.
TEST(ServerFamilyTest, ChildrenAreFoundAndKilledOneByOne) {
  const pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  const std::vector<base::ProcStat> family = ListFamily(getpid());
  std::vector<pid_t> pids;
  for (const base::ProcStat& each : family) pids.push_back(each.pid);
  EXPECT_THAT(pids, ::testing::IsSupersetOf({getpid(), child}));
  std::vector<base::ProcStat> orphans = family;
  std::erase_if(orphans, [&](const base::ProcStat& each) { return each.pid != child; });
  ASSERT_EQ(StillThere(orphans).size(), 1u);
  KillProcesses(orphans);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_TRUE(StillThere(orphans).empty());
  // Another process of the same pid is not meant.
  base::ProcStat other = family.front();
  ++other.start_ticks;
  EXPECT_TRUE(StillThere({other}).empty());
}

TEST_F(ProcessTest, EachModeStops) {
  for (const StopMode mode :
       {StopMode::kSmart, StopMode::kFast, StopMode::kImmediate, StopMode::kKill}) {
    const auto process = Launch();
    StopOptions options;
    options.mode = mode;
    ASSERT_OK_AND_ASSIGN(const StopResult result, Stop(*process, options));
    EXPECT_EQ(result.mode, mode);
    EXPECT_FALSE(process->alive());
    if (mode == StopMode::kKill) {
      ASSERT_OK(base::RemoveTree(cluster_.data_dir() + "/postmaster.pid"));
    }
  }
}

TEST_F(ProcessTest, TheCallersTimeoutIsHonouredAndNothingStrongerIsDoneUnasked) {
  cluster_.Behave("stubborn fast");
  const auto process = Launch();
  StopOptions options;
  options.timeout = absl::Milliseconds(300);
  const base::MonotonicTime start = base::RealClock().Monotonic();
  const auto stopped = Stop(*process, options);
  EXPECT_THAT(stopped, StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("stays requested")));
  EXPECT_LT(base::RealClock().Monotonic() - start, absl::Seconds(2));
  EXPECT_TRUE(process->alive());
}

TEST_F(ProcessTest, EscalationGoesOneStepAtATimeUpToWhatIsAllowed) {
  cluster_.Behave("stubborn fast");
  const auto process = Launch();
  std::vector<StopMode> steps;
  StopOptions options;
  options.timeout = options.escalation_timeout = absl::Milliseconds(200);
  options.escalate_to = StopMode::kImmediate;
  options.on_escalation = [&](StopMode mode) { steps.push_back(mode); };
  ASSERT_OK_AND_ASSIGN(const StopResult result, Stop(*process, options));
  EXPECT_EQ(result.mode, StopMode::kImmediate);
  EXPECT_THAT(steps, ElementsAre(StopMode::kImmediate));
}

TEST_F(ProcessTest, ACancelledStopStopsWaiting) {
  cluster_.Behave("stubborn smart");
  const auto process = Launch();
  StopOptions options;
  options.mode = StopMode::kSmart;
  options.cancelled = [] { return true; };
  EXPECT_THAT(Stop(*process, options), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_TRUE(process->alive());
}

TEST(LogFailureTest, TheCauseTheFatalLineAndItsHintMakeTheMessage) {
  testing::TempDir dir;
  const std::string old = "2026 [1] FATAL:  old news\n";
  const std::string path = dir.Write(
      "log",
      old +
          "2026 [2] LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\n"
          "2026 [2] HINT:  Is another postmaster already running on port 5432?\n"
          "2026 [2] FATAL:  could not create any TCP/IP sockets\n"
          "2026 [2] LOG:  database system is shut down\n");
  EXPECT_EQ(LogFailure(path, old.size()),
            "could not bind IPv4 address \"127.0.0.1\": Address already in use: FATAL: could not "
            "create any TCP/IP "
            "sockets");
  EXPECT_EQ(LogFailure(path, 100000), "");
  EXPECT_EQ(LogFailure(dir.File("none"), 0), "");
  EXPECT_EQ(LogFailure(dir.Write("plain", "Segmentation fault\n"), 0), "Segmentation fault");
  EXPECT_EQ(LogFailure(dir.Write("hint", "FATAL:  no\nHINT:  yes\nDETAIL:  much\n"), 0),
            "FATAL: no. HINT: yes. DETAIL: much");
}

TEST(PostmasterTest, AMissingProcessIsNotFound) {
  EXPECT_THAT(Postmaster::Open(0x3fffff), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace metal::pg
