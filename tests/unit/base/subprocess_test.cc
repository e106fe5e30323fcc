#include "agent/base/subprocess.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/base/thread.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::base {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using testing::StatusIs;
using testing::TempDir;

SubprocessOptions Shell(std::string script) {
  SubprocessOptions options;
  options.argv = {"/bin/sh", "-c", std::move(script)};
  return options;
}

bool Alive(pid_t pid) { return kill(pid, 0) == 0; }

// Waits for a condition of the world; the bound only keeps a broken test from hanging.
template <typename Predicate>
bool Eventually(Predicate predicate) {
  const MonotonicTime start = RealClock().Monotonic();
  while (!predicate()) {
    if (RealClock().Monotonic() - start > absl::Seconds(20)) return false;
    RealClock().Sleep(absl::Milliseconds(2));
  }
  return true;
}

// The daemon of a test, adopted by this process as a subreaper, so that the test can end and
// collect it.
void EndAdopted(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST(RunSubprocessTest, CollectsOutputAndExitCode) {
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(Shell("echo out; echo err >&2; exit 3")));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.standard_output, "out\n");
  EXPECT_EQ(result.standard_error, "err\n");
}

TEST(RunSubprocessTest, SignalBecomes128Plus) {
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(Shell("kill -TERM $$")));
  EXPECT_EQ(result.exit_code, 128 + SIGTERM);
}

TEST(RunSubprocessTest, ProgramIsSearchedInPath) {
  SubprocessOptions options;
  options.argv = {"true"};
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(options));
  EXPECT_TRUE(result.ok());
}

TEST(RunSubprocessTest, MissingProgramIsNotFound) {
  SubprocessOptions options;
  options.argv = {"no-such-program-anywhere"};
  EXPECT_THAT(RunSubprocess(options),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no-such-program-anywhere")));
  options.argv = {"/no/such/program"};
  EXPECT_THAT(RunSubprocess(options),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/program")));
  options.argv = {};
  EXPECT_THAT(RunSubprocess(options), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(RunSubprocessTest, FileThatIsNoProgramIsAnError) {
  const TempDir dir;
  SubprocessOptions options;
  options.argv = {dir.Write("text", "no program")};
  EXPECT_THAT(RunSubprocess(options), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST(RunSubprocessTest, MissingDirectoryIsNamed) {
  SubprocessOptions options = Shell("true");
  options.directory = "/no/such/directory";
  EXPECT_THAT(RunSubprocess(options),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/directory")));
}

TEST(RunSubprocessTest, RunsInTheDirectory) {
  const TempDir dir;
  SubprocessOptions options = Shell("pwd");
  ASSERT_OK_AND_ASSIGN(const auto in_root, RunSubprocess(options));
  EXPECT_EQ(in_root.standard_output, "/\n");
  options.directory = dir.path();
  ASSERT_OK_AND_ASSIGN(const auto in_dir, RunSubprocess(options));
  EXPECT_EQ(in_dir.standard_output, dir.path() + "\n");
}

TEST(RunSubprocessTest, EnvironmentIsClean) {
  setenv("PGHOST", "elsewhere", 1);
  setenv("NOTIFY_SOCKET", "/run/x", 1);
  SubprocessOptions options = Shell("env");
  options.environment = {{"EXTRA", "a b=c"}, {"TZ", "Europe/Berlin"}};
  const auto result = RunSubprocess(options);
  unsetenv("PGHOST");
  unsetenv("NOTIFY_SOCKET");
  ASSERT_OK(result.status());
  EXPECT_THAT(result->standard_output, Not(HasSubstr("PGHOST")));
  EXPECT_THAT(result->standard_output, Not(HasSubstr("NOTIFY_SOCKET")));
  for (const char* line : {"PATH=", "LC_ALL=C\n", "TZ=Europe/Berlin\n", "HOME=", "EXTRA=a b=c\n"}) {
    EXPECT_THAT(result->standard_output, HasSubstr(line));
  }
}

TEST(RunSubprocessTest, OtherDescriptorsAreClosed) {
  const int leaky = open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  const int high = fcntl(leaky, F_DUPFD, 700);
  SubprocessOptions options;  // no shell: it opens pipes of its own
  options.argv = {"ls", "/proc/self/fd"};
  const auto result = RunSubprocess(options);
  close(leaky);
  close(high);
  ASSERT_OK(result.status());
  EXPECT_EQ(result->standard_output, "0\n1\n2\n3\n") << "3 is the directory that ls reads";
}

TEST(RunSubprocessTest, SignalDispositionsAndMaskAreReset) {
  signal(SIGPIPE, SIG_IGN);
  sigset_t block;
  sigset_t before;
  sigemptyset(&block);
  sigaddset(&block, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &block, &before);
  SubprocessOptions options;  // no shell: it blocks signals while it forks
  options.argv = {"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"};
  const auto result = RunSubprocess(options);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  signal(SIGPIPE, SIG_DFL);
  ASSERT_OK(result.status());
  EXPECT_EQ(result->standard_output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST(RunSubprocessTest, InputReachesTheChildWhateverItsSize) {
  SubprocessOptions options = Shell("wc -c");
  options.standard_input = std::string(3'000'000, 'x');
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(options));
  EXPECT_EQ(result.standard_output, "3000000\n");
  options = Shell("true");  // does not read it
  options.standard_input = std::string(3'000'000, 'x');
  EXPECT_OK(RunSubprocess(options).status());
}

TEST(RunSubprocessTest, InputIsEmptyByDefault) {
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(Shell("cat; echo end")));
  EXPECT_EQ(result.standard_output, "end\n");
}

TEST(RunSubprocessTest, OutputIsBoundedToItsTail) {
  SubprocessOptions options = Shell("seq 1 200000");
  options.output_limit = 1000;
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(options));
  EXPECT_EQ(result.standard_output.size(), 1000u);
  EXPECT_EQ(result.LastLine(), "200000");
}

TEST(RunSubprocessTest, LargeOutputsOnBothStreamsDoNotDeadlock) {
  SubprocessOptions options = Shell("seq 1 100000 >&2 & seq 1 100000; wait");
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(options));
  EXPECT_EQ(result.standard_output, result.standard_error);
  EXPECT_EQ(result.standard_output.size(), 588'895u);
}

TEST(RunSubprocessTest, LinesOfStandardErrorAreDelivered) {
  std::vector<std::string> lines;
  SubprocessOptions options = Shell("printf 'one\\ntwo\\n\\nthree' >&2");
  options.on_stderr_line = [&](std::string_view line) { lines.emplace_back(line); };
  ASSERT_OK(RunSubprocess(options).status());
  EXPECT_THAT(lines, ElementsAre("one", "two", "", "three"));
}

TEST(RunSubprocessTest, TimeoutKillsTheWholeGroup) {
  const TempDir dir;
  SubprocessOptions options =
      Shell("sleep 1000 & echo $! > " + dir.File("pid") + "; echo waiting >&2; wait");
  options.timeout = absl::Milliseconds(300);
  const MonotonicTime start = RealClock().Monotonic();
  EXPECT_THAT(RunSubprocess(options),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("waiting")));
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(10));
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir.File("pid")));
  // Nobody may be there to collect it, so a zombie counts as dead.
  const std::string stat = "/proc/" + std::to_string(std::stoi(text)) + "/stat";
  EXPECT_TRUE(Eventually([&] {
    const auto state = ReadFile(stat);
    return !state.ok() || state->find(") Z ") != std::string::npos;
  }));
}

TEST(RunSubprocessTest, CancelTerminatesTheChild) {
  const TempDir dir;
  SubprocessOptions options = Shell("trap 'echo got term >&2; exit 0' TERM; echo > " +
                                    dir.File("up") + "; while :; do sleep 0.02; done");
  options.cancelled = [&] { return PathExists(dir.File("up")); };
  EXPECT_THAT(RunSubprocess(options),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("got term")));
}

TEST(RunSubprocessTest, GrandchildThatHoldsTheOutputDoesNotDelay) {
  const TempDir dir;
  SubprocessOptions options = Shell("sleep 30 & echo $! > " + dir.File("pid") + "; echo done");
  const MonotonicTime start = RealClock().Monotonic();
  ASSERT_OK_AND_ASSIGN(const auto result, RunSubprocess(options));
  EXPECT_LT(RealClock().Monotonic() - start, absl::Seconds(20));
  EXPECT_EQ(result.standard_output, "done\n");
  ASSERT_OK_AND_ASSIGN(const std::string pid, ReadFile(dir.File("pid")));
  kill(std::stoi(pid), SIGKILL);
}

TEST(RunSubprocessTest, ManyThreadsRunManyChildren) {
  std::atomic<int> good{0};
  {
    std::vector<Thread> threads;
    for (int i = 0; i < 6; ++i) {
      threads.emplace_back("runner", [&good, i] {
        for (int n = 0; n < 15; ++n) {
          const std::string word = std::to_string(i * 100 + n);
          const auto result = RunSubprocess(Shell("echo " + word));
          if (result.ok() && result->standard_output == word + "\n") ++good;
        }
      });
    }
  }
  EXPECT_EQ(good, 90);
}

TEST(RunSubprocessTest, LeavesNoDescriptorsAndNoChildrenBehind) {
  ASSERT_OK(RunSubprocess(Shell("true")).status());
  ASSERT_OK_AND_ASSIGN(const auto before, ListDirectory("/proc/self/fd"));
  for (int i = 0; i < 20; ++i) {
    ASSERT_OK(RunSubprocess(Shell("true")).status());
    SubprocessOptions missing;
    missing.argv = {"/no/such"};
    ASSERT_FALSE(RunSubprocess(missing).ok());
  }
  ASSERT_OK_AND_ASSIGN(const auto after, ListDirectory("/proc/self/fd"));
  EXPECT_EQ(after.size(), before.size());
  EXPECT_EQ(waitid(P_ALL, 0, nullptr, WEXITED | WNOHANG | WNOWAIT), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(SubprocessResultTest, LastLinePrefersStandardError) {
  SubprocessResult result;
  EXPECT_EQ(result.LastLine(), "");
  result.standard_output = "a\nb\n\n";
  EXPECT_EQ(result.LastLine(), "b");
  result.standard_error = "error: x\n \n";
  EXPECT_EQ(result.LastLine(), "error: x");
}

TEST(StartDaemonTest, DaemonRunsInItsOwnSessionAndLogs) {
  const TempDir dir;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  DaemonOptions options;
  options.argv = {"/bin/sh", "-c", "echo hello; echo trouble >&2; exec sleep 1000"};
  options.log_path = dir.Write("log", "earlier\n");
  ASSERT_OK_AND_ASSIGN(const pid_t pid, StartDaemon(options));
  EXPECT_TRUE(Alive(pid));
  EXPECT_NE(getsid(pid), getsid(0));
  EXPECT_NE(getsid(pid), pid) << "a session leader could get a controlling terminal";
  EXPECT_TRUE(
      Eventually([&] { return *ReadFile(options.log_path) == "earlier\nhello\ntrouble\n"; }));
  EndAdopted(pid);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(StartDaemonTest, ExecErrorIsReported) {
  DaemonOptions options;
  options.argv = {"/no/such/postgres"};
  EXPECT_THAT(StartDaemon(options),
              StatusIs(absl::StatusCode::kNotFound, StartsWith("run /no/such/postgres")));
}

TEST(StartDaemonTest, DaemonIsNobodysChildHere) {
  DaemonOptions options;
  options.argv = {"/bin/sleep", "0.05"};
  ASSERT_OK_AND_ASSIGN(const pid_t pid, StartDaemon(options));
  EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace metal::base
