// The WAL archive when things break: killed at every step, every file call failing, power lost,
// disk full.
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>

#include "agent/backup/wal_archive.h"
#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

using absl::StatusCode;
using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::IsEmpty;

constexpr const char* kRepositoryVariable = "METAL_TEST_WAL_REPOSITORY";

absl::Status PushTo(const std::string& repository) {
  WalArchive archive({.repository_path = repository}, base::RealClock(), nullptr);
  return archive.PushBytes(TestSegment{}.Name(), BytesOf(TestSegment{}.Bytes()), kTestSystem)
      .status();
}

class WalFaultsTest : public ::testing::Test {
 protected:
  // What must hold whatever happened: the file is absent or whole, a new process cleans up, and the
  // next push works.
  void ExpectRecovers(const std::string& repository, const std::string& what) {
    WalArchive archive({.repository_path = repository}, clock_, nullptr);
    const std::string name = TestSegment{}.Name();
    ASSERT_OK(archive.Prepare()) << what;
    const auto found = archive.FetchBytes(kTestSystem, name);
    if (found.ok()) {
      EXPECT_TRUE(*found == TestSegment{}.Bytes()) << what;
    } else {
      EXPECT_THAT(found, StatusIs(StatusCode::kNotFound)) << what;
    }
    const std::string incoming = repository + "/7300000000000000001/wal/incoming";
    if (base::PathExists(incoming)) {
      EXPECT_THAT(base::ListDirectory(incoming), IsOkAndHolds(IsEmpty())) << what;
    }
    EXPECT_OK(archive.PushBytes(name, BytesOf(TestSegment{}.Bytes()), kTestSystem)) << what;
    EXPECT_OK(archive.Verify(kTestSystem, name)) << what;
  }

  // Runs PushIsWhole in a process of its own, with these fault points.
  absl::StatusOr<base::SubprocessResult> PushInAProcess(
      const std::string& repository, std::map<std::string, std::string> environment) {
    environment[kRepositoryVariable] = repository;
    base::SubprocessOptions options;
    options.argv = {"/proc/self/exe", "--gtest_filter=WalFaultsTest.PushIsWhole"};
    options.environment = std::move(environment);
    return base::RunSubprocess(options);
  }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
};

// By itself without a fault, into a repository of its own; and what the tests below have killed.
TEST_F(WalFaultsTest, PushIsWhole) {
  const char* given = std::getenv(kRepositoryVariable);
  const std::string repository = given != nullptr ? given : directory_.File("repository");
  ASSERT_OK(PushTo(repository));
  WalArchive archive({.repository_path = repository}, clock_, nullptr);
  EXPECT_OK(archive.Verify(kTestSystem, TestSegment{}.Name()));
}

TEST_F(WalFaultsTest, KilledAtEveryStep) {
  const std::string trace = directory_.File("trace");
  ASSERT_OK_AND_ASSIGN(const auto traced,
                       PushInAProcess(directory_.File("traced"), {{"METAL_FAULT_TRACE", trace}}));
  ASSERT_EQ(traced.exit_code, 0) << traced.standard_output;
  ASSERT_OK_AND_ASSIGN(std::string points, base::ReadFile(trace));
  int steps = 0;
  while (!points.empty()) {
    const size_t end = points.find('\n');
    const std::string point = points.substr(0, end);
    points.erase(0, end == std::string::npos ? points.size() : end + 1);
    if (!point.starts_with("wal.")) continue;
    ++steps;
    const std::string repository = directory_.File(point);
    ASSERT_OK_AND_ASSIGN(const auto killed,
                         PushInAProcess(repository, {{"METAL_FAULT_POINTS", point + "=crash"}}));
    EXPECT_EQ(killed.exit_code, 128 + SIGKILL) << point;
    ExpectRecovers(repository, point);
  }
  EXPECT_EQ(steps, 8);
}

TEST_F(WalFaultsTest, EveryFileCallFails) {
  struct Row {
    const char* name;
    testing::FileFault fault;
  };
  const Row rows[] = {{"eio", {.kind = testing::FileFaultKind::kError, .error = EIO}},
                      {"enospc", {.kind = testing::FileFaultKind::kError, .error = ENOSPC}},
                      {"short", {.kind = testing::FileFaultKind::kShortWrite}},
                      {"power", {.kind = testing::FileFaultKind::kPowerLoss}}};
  for (const Row& row : rows) {
    bool fired = true;
    int at_call = 0;
    while (fired) {
      const std::string repository = directory_.File(fmt::format("{}{}", row.name, ++at_call));
      // The repository is there already: its own creation is tested with it.
      ASSERT_OK(WalArchive({.repository_path = repository}, clock_, nullptr).Prepare());
      absl::Status status;
      {
        testing::FileFault fault = row.fault;
        fault.at_call = at_call;
        const testing::FileFaults faults(repository, fault);
        status = PushTo(repository);
        fired = faults.fired();
      }
      if (!fired || row.fault.kind == testing::FileFaultKind::kShortWrite) {
        EXPECT_OK(status) << row.name << " at call " << at_call;
      }
      ExpectRecovers(repository,
                     fmt::format("{} at call {}: {}", row.name, at_call, status.ToString()));
    }
    EXPECT_GT(at_call, 15) << row.name;
  }
}

// Recovery that hears "not there" ends, and the copy opens without the rest of its WAL.
TEST_F(WalFaultsTest, AFileThatCannotBeReadIsNeverSaidToBeMissing) {
  const std::string repository = directory_.File("repository"), name = TestSegment{}.Name();
  ASSERT_OK(PushTo(repository));
  WalArchive archive({.repository_path = repository}, clock_, nullptr);
  const WalRange range{.system_identifier = kTestSystem,
                       .timeline = 1,
                       .from = TestSegment{}.start,
                       .to = base::Lsn{TestSegment{}.start.value + 100},
                       .segment_size = kTestSegmentSize};
  for (const int error : {EIO, ENXIO, ENODEV, EACCES, ESTALE, EUCLEAN, ENFILE, ENOTDIR}) {
    SCOPED_TRACE(strerror(error));
    {
      const testing::FileFaults faults(repository, {.at_call = 1, .error = error});
      const absl::Status fetched = archive.FetchBytes(kTestSystem, name).status();
      ASSERT_TRUE(faults.fired());
      EXPECT_FALSE(fetched.ok() || absl::IsNotFound(fetched)) << fetched;
      EXPECT_THAT(fetched.message(), ::testing::HasSubstr(strerror(error)));
      EXPECT_THAT(fetched.message(), ::testing::HasSubstr("HINT"));
    }
    const testing::FileFaults faults(repository, {.at_call = 1, .error = error});
    const auto missing = archive.MissingSegments(range);
    ASSERT_TRUE(faults.fired());
    EXPECT_FALSE(missing.ok()) << "the file is no gap";
  }
  EXPECT_THAT(archive.MissingSegments(range), IsOkAndHolds(IsEmpty()));
}

TEST_F(WalFaultsTest, AckedFileSurvivesPowerLossRightAfter) {
  const std::string repository = directory_.File("repository");
  ASSERT_OK(WalArchive({.repository_path = repository}, clock_, nullptr).Prepare());
  int calls = 0;
  {
    const testing::FileFaults counter(repository, {});
    ASSERT_OK(PushTo(directory_.File("repository")));
    calls = static_cast<int>(counter.calls().size());
  }
  ASSERT_OK(base::RemoveTree(repository));
  ASSERT_OK(WalArchive({.repository_path = repository}, clock_, nullptr).Prepare());
  {
    const testing::FileFaults faults(
        repository, {.at_call = calls + 1, .kind = testing::FileFaultKind::kPowerLoss});
    ASSERT_OK(PushTo(repository));
    EXPECT_EQ(open((repository + "/x").c_str(), O_RDONLY | O_CLOEXEC), -1);
    ASSERT_TRUE(faults.fired());
  }
  WalArchive archive({.repository_path = repository}, clock_, nullptr);
  EXPECT_OK(archive.Verify(kTestSystem, TestSegment{}.Name()));
}

TEST_F(WalFaultsTest, FullDiskIsReportedAndLeavesNothingBehind) {
  const std::string repository = directory_.File("small");
  ASSERT_OK(base::MakeDirectories(repository));
  if (mount("tmpfs", repository.c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "cannot mount a tmpfs: " << strerror(errno);
  }
  metal::testing::RecordedEvents events;
  {
    WalArchive archive({.repository_path = repository, .codec = stream::CodecKind::kNone}, clock_,
                       &events);
    const auto pushed =
        archive.PushBytes(TestSegment{}.Name(), BytesOf(TestSegment{}.Bytes()), kTestSystem);
    EXPECT_THAT(pushed, StatusIs(StatusCode::kResourceExhausted, ::testing::HasSubstr("HINT")));
    EXPECT_EQ(base::GetReason(pushed.status())->reason, "NO_SPACE");
    EXPECT_THAT(archive.FetchBytes(kTestSystem, TestSegment{}.Name()),
                StatusIs(StatusCode::kNotFound));
    EXPECT_THAT(base::ListDirectory(repository + "/7300000000000000001/wal/incoming"),
                IsOkAndHolds(IsEmpty()));
    // What fits is still taken.
    EXPECT_OK(archive.PushBytes("00000002.history", BytesOf("1\t0/700000\tx\n"), kTestSystem));
    EXPECT_THAT(events.types(), ::testing::ElementsAre("wal.push_failed", "wal.push_recovered"));
  }
  EXPECT_EQ(umount2(repository.c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace metal::backup
