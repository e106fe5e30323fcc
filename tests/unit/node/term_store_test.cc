#include "agent/node/term_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/node/crash_directory.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

class TermStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<TermStore> Open(const std::string& path) {
    return TermStore::Open(path, clock_, board_, events_);
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

}  // namespace
}  // namespace metal::node
