#include "agent/node/terms/term_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/node/crash_directory.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

bool Await(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000 && !condition(); ++i) base::RealClock().Sleep(absl::Milliseconds(10));
  return condition();
}

class TermStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<TermStore> Open(TermPlaces places) {
    return TermStore::Open(std::move(places), clock_, board_, events_);
  }
  TermPlaces WithMemory() { return {directory_.File("term"), directory_.File("memory")}; }
  // The fence is written in the background.
  static bool AwaitStored(const TermStore& store) {
    return Await([&] { return store.FenceIsStored(); });
  }
  std::unique_ptr<TermStore> Open() { return Open(directory_.File("term")); }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  observe::StatusBoard board_{clock_};
  metal::testing::RecordedEvents events_;
};

TEST_F(TermStoreTest, MissingFileIsTermZeroStandbyUnfenced) {
  const TermRecord record = Open()->Get();
  EXPECT_EQ(record.term, 0u);
  EXPECT_EQ(record.role_wanted, observe::Role::kStandby);
  EXPECT_FALSE(record.fence.active);
  EXPECT_FALSE(record.MayRunAsPrimary());
  EXPECT_FALSE(base::PathExists(directory_.File("term")));
}

TEST_F(TermStoreTest, PromisesSurviveARestart) {
  {
    auto store = Open();
    ASSERT_OK(store->BeginTerm({5, "a"}));
    ASSERT_OK(store->SetRoleWanted({5, "a"}, observe::Role::kPrimary));
  }
  auto store = Open();
  EXPECT_EQ(store->Get().term, 5u);
  EXPECT_TRUE(store->Get().MayRunAsPrimary());
  EXPECT_THAT(store->BeginTerm({4, "a"}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(store->BeginTerm({5, "b"}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(store->BeginTerm({5, "a"}));
}

TEST_F(TermStoreTest, BoardShowsWhatIsStored) {
  auto store = Open();
  ASSERT_OK(store->BeginTerm({5, "a"}));
  ASSERT_OK(store->Fence({6, "b"}, "sick disk"));
  const auto status = board_.Get();
  EXPECT_EQ(status->node.term, 6u);
  EXPECT_EQ(status->node.term_orchestrator, "b");
  EXPECT_TRUE(status->node.fenced);
  EXPECT_EQ(status->node.fence_reason, "sick disk");
  EXPECT_EQ(events_.Count("term.begun"), 1u);
  EXPECT_EQ(events_.Count("term.fenced"), 1u);
}

TEST_F(TermStoreTest, FenceSurvivesARestartAndIsLiftedOnlyByItsTermOrLater) {
  ASSERT_OK(Open()->Fence({6, "b"}, "sick disk"));
  auto store = Open();
  EXPECT_TRUE(store->Get().fence.active);
  EXPECT_THAT(store->Unfence({5, "b"}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(store->SetRoleWanted({6, "b"}, observe::Role::kPrimary),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("fenced")));
  ASSERT_OK(store->Unfence({6, "b"}));
  EXPECT_FALSE(Open()->Get().fence.active);
}

TEST_F(TermStoreTest, ANodeThatFencesItselfIsFencedInMemoryAndThenOnTheDisk) {
  {
    auto store = Open(WithMemory());
    ASSERT_OK(store->BeginTerm({5, "a"}));
    ASSERT_OK(store->SetRoleWanted({5, "a"}, observe::Role::kPrimary));
    ASSERT_OK(store->FenceNow({5, "a"}, "disk: gone"));
    EXPECT_TRUE(store->Get().fence.active);
    EXPECT_FALSE(store->Get().MayRunAsPrimary());
    EXPECT_TRUE(board_.Get()->node.fenced);
    EXPECT_TRUE(base::PathExists(directory_.File("memory")));
    EXPECT_TRUE(AwaitStored(*store));
  }
  auto store = Open();  // without the file in memory, as after a reboot
  EXPECT_EQ(store->Get().fence.reason, "disk: gone");
  EXPECT_FALSE(store->Get().MayRunAsPrimary());
}

// The directory of the store is away, as with its drive.
TEST_F(TermStoreTest, AFenceCountsWithoutTheDiskAndIsStoredOnceItTakesIt) {
  const std::string away = directory_.File("away"), here = directory_.File("here");
  for (const std::string& state : {away, here}) {
    ASSERT_OK(base::MakeDirectories(state));
    auto store = Open(state + "/term");
    ASSERT_OK(store->BeginTerm({5, "a"}));
    ASSERT_OK(store->SetRoleWanted({5, "a"}, observe::Role::kPrimary));
  }
  {
    auto store = Open({away + "/term", directory_.File("memory")});
    ASSERT_OK(base::RemoveTree(away));
    ASSERT_OK(store->FenceNow({5, "a"}, "disk: gone"));
    EXPECT_FALSE(store->Get().MayRunAsPrimary());
    EXPECT_FALSE(store->FenceIsStored());
    EXPECT_THAT(store->SetRoleWanted({5, "a"}, observe::Role::kPrimary),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("fenced")));
    EXPECT_FALSE(store->Unfence({5, "a"}).ok());
    EXPECT_TRUE(store->Get().fence.active);
  }
  // The agent starts again, and its disk says that it is the primary.
  const TermPlaces places(here + "/term", directory_.File("memory"));
  auto store = Open(places);
  EXPECT_EQ(store->Get().fence.reason, "disk: gone");
  EXPECT_FALSE(store->Get().MayRunAsPrimary());
  EXPECT_EQ(events_.Count("term.fence_found"), 1u);
  store->KeepFence();
  EXPECT_TRUE(AwaitStored(*store));
  EXPECT_TRUE(Open(here + "/term")->Get().fence.active);
  ASSERT_OK(store->Unfence({5, "a"}));
  EXPECT_FALSE(base::PathExists(directory_.File("memory")));
  EXPECT_FALSE(Open(places)->Get().fence.active);
}

TEST_F(TermStoreTest, AFenceThatCannotBeReadIsOne) {
  directory_.Write("memory", "metal-term 1\nterm=9\n");
  auto store = Open(WithMemory());
  EXPECT_TRUE(store->Get().fence.active);
  ASSERT_OK(store->BeginTerm({10, "a"}));
  ASSERT_OK(store->Unfence({10, "a"}));
  EXPECT_FALSE(Open(WithMemory())->Get().fence.active);
}

TEST_F(TermStoreTest, DroppedRoleStaysDropped) {
  auto store = Open();
  ASSERT_OK(store->BeginTerm({5, "a"}));
  ASSERT_OK(store->SetRoleWanted({5, "a"}, observe::Role::kPrimary));
  ASSERT_OK(store->DropPrimaryRole());
  EXPECT_FALSE(store->Get().MayRunAsPrimary());
  EXPECT_FALSE(Open()->Get().MayRunAsPrimary());
  EXPECT_EQ(Open()->Get().term, 5u);
  ASSERT_OK(store->SetRoleWanted({5, "a"}, observe::Role::kPrimary));
  EXPECT_TRUE(Open()->Get().MayRunAsPrimary());
}

TEST_F(TermStoreTest, DamagedFileFencesAndStaysFencedUntilUnfenced) {
  const std::string path = directory_.Write("term", "metal-term 1\nterm=9\n");
  {
    auto store = Open();
    EXPECT_TRUE(store->Get().fence.active);
    EXPECT_THAT(store->Get().fence.reason, HasSubstr("term store unreadable"));
    EXPECT_FALSE(store->Get().MayRunAsPrimary());
    EXPECT_EQ(events_.Count("term.unreadable"), 1u);
  }
  // Nothing was written by looking: the next start is fenced as well.
  auto store = Open();
  EXPECT_TRUE(store->Get().fence.active);
  ASSERT_OK(store->BeginTerm({10, "a"}));
  EXPECT_TRUE(Open()->Get().fence.active);
  ASSERT_OK(store->Unfence({10, "a"}));
  EXPECT_FALSE(Open()->Get().fence.active);
  // The damaged bytes are kept as evidence.
  ASSERT_OK_AND_ASSIGN(const auto names, base::ListDirectory(directory_.path()));
  size_t kept = 0;
  for (const std::string& name : names) {
    if (!name.starts_with("term.damaged-")) continue;
    ++kept;
    EXPECT_EQ(*base::ReadFile(directory_.File(name)), "metal-term 1\nterm=9\n");
  }
  EXPECT_EQ(kept, 1u);
}

TEST_F(TermStoreTest, UnreadableFileFences) {
  ASSERT_OK(base::MakeDirectories(directory_.File("term")));  // reading it fails with EISDIR
  auto store = Open();
  EXPECT_TRUE(store->Get().fence.active);
  EXPECT_FALSE(store->BeginTerm({1, "a"}).ok());
  EXPECT_EQ(store->Get().term, 0u);
}

TEST_F(TermStoreTest, FailedWriteIsNotPromised) {
  auto store = Open(directory_.File("missing/term"));
  EXPECT_FALSE(store->BeginTerm({3, "a"}).ok());
  EXPECT_EQ(store->Get().term, 0u);
  EXPECT_EQ(board_.Get()->node.term, 0u);
  // Once the directory is there the same call goes through.
  ASSERT_OK(base::MakeDirectories(directory_.File("missing")));
  EXPECT_OK(store->BeginTerm({3, "a"}));
}

TEST_F(TermStoreTest, FullDiskKeepsTheOldPromise) {
  auto store = Open();
  ASSERT_OK(store->BeginTerm({3, "a"}));
  // A file size limit makes write() fail after so many bytes, like a device that becomes full.
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* const old_handler = ::signal(SIGXFSZ, SIG_IGN);
  for (rlim_t bytes = 0; bytes < 128; bytes += 16) {
    const struct rlimit tight = {bytes, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
    const absl::Status status = store->BeginTerm({4, "b"});
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_FALSE(status.ok()) << bytes;
    EXPECT_EQ(Open()->Get().term, 3u) << bytes;
    EXPECT_EQ(store->Get().term, 3u) << bytes;
  }
  ::signal(SIGXFSZ, old_handler);
  EXPECT_OK(store->BeginTerm({4, "b"}));
}

TEST_F(TermStoreTest, WarnsOnTheDataDevice) {
  auto store = Open();
  struct stat same, other;
  ASSERT_EQ(::stat(directory_.path().c_str(), &same), 0);
  ASSERT_EQ(::stat("/proc", &other), 0);
  store->WarnIfOnSameDevice(directory_.path(), same.st_dev);
  EXPECT_EQ(events_.Count("term.same_device"), 1u);
  store->WarnIfOnSameDevice("/proc", other.st_dev);
  EXPECT_EQ(events_.Count("term.same_device"), 1u);
  EXPECT_EQ(events_.Count("term.fence_same_device"), 0u) << "it has no such place";
  store = Open(WithMemory());
  store->WarnIfOnSameDevice("/proc", other.st_dev);
  EXPECT_EQ(events_.Count("term.fence_same_device"), 0u);
  store->WarnIfOnSameDevice(directory_.path(), same.st_dev);
  EXPECT_EQ(events_.Count("term.fence_same_device"), 1u);
}

// Killed at each step of a store: afterwards the file holds the old or the new record, never
// neither.
struct CrashStep {
  const char* point;
  uint64_t term_after;
};

class TermStoreCrashTest : public TermStoreTest, public ::testing::WithParamInterface<CrashStep> {};

TEST_P(TermStoreCrashTest, LeavesTheOldOrTheNewTerm) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const CrashDirectory shared("METAL_TEST_TERM_DIRECTORY");
  const std::string path = shared.File("term");
  const std::string plan = std::string(GetParam().point) + "=crash@2";
  EXPECT_EXIT(
      {
        ::setenv("METAL_FAULT_POINTS", plan.c_str(), 1);
        auto store = Open(path);
        (void)store->BeginTerm({1, "a"});
        (void)store->BeginTerm({2, "b"});
        ::_exit(0);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  const TermRecord record = Open(path)->Get();
  EXPECT_EQ(record.term, GetParam().term_after);
  EXPECT_FALSE(record.fence.active);
}

INSTANTIATE_TEST_SUITE_P(EveryStep, TermStoreCrashTest,
                         ::testing::Values(CrashStep{"term.before_write", 1},
                                           CrashStep{"term.written", 2}));

// In a process whose writes of the term hang while a file is there. 0: as promised.
// `ordered`: what hangs is a fence too, for another reason.
int FenceBesideAWriteThatHangs(bool ordered) {
  testing::TempDir directory;
  testing::SimulatedClock clock;
  observe::StatusBoard board{clock};
  metal::testing::RecordedEvents events;
  const std::string path = directory.File("term"), trace = directory.File("trace");
  TermRecord primary;
  primary.term = primary.role_term = 5;
  primary.orchestrator_id = "a";
  primary.role_wanted = observe::Role::kPrimary;
  if (!base::WriteFileDurably(path, EncodeTermRecord(primary)).ok()) return 1;
  const std::string pause = directory.Write("pause", "");
  ::setenv("METAL_FAULT_POINTS", "term.before_write=pause", 1);
  ::setenv("METAL_FAULT_PAUSE_FILE", pause.c_str(), 1);
  ::setenv("METAL_FAULT_TRACE", trace.c_str(), 1);
  auto store = TermStore::Open({path, directory.File("memory")}, clock, board, events);
  base::Thread hangs("hangs", [&] {
    (void)(ordered ? store->Fence({6, "a"}, "failover") : store->BeginTerm({6, "a"}));
  });
  if (!Await([&] { return base::PathExists(trace); })) return 2;
  if (!store->FenceNow({5, "a"}, "disk: stalled").ok()) return 3;
  if (store->Get().MayRunAsPrimary() || store->FenceIsStored()) return 4;
  const auto kept = base::ReadFile(directory.File("memory"));
  if (!kept.ok() || !DecodeTermRecord(*kept)->fence.active) return 5;
  ::unlink(pause.c_str());
  hangs.Join();
  // Also over the write that knew of no fence.
  if (!Await([&] { return store->FenceIsStored(); })) return 6;
  const auto stored = base::ReadFile(path);
  if (!stored.ok() || !DecodeTermRecord(*stored)->FencedForDisk()) return 7;
  if (!store->Get().FencedForDisk()) return 9;
  return store->Get().term == 6 ? 0 : 8;
}

TEST(TermStoreDeathTest, AFenceDoesNotWaitForAWriteThatHangs) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  for (const bool ordered : {false, true}) {
    EXPECT_EXIT({ std::_Exit(FenceBesideAWriteThatHangs(ordered)); }, ::testing::ExitedWithCode(0),
                "");
  }
}

}  // namespace
}  // namespace metal::node
