#include "agent/backup/memory_budget.h"

#include <optional>

#include "agent/base/thread.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

constexpr base::ByteCount Mebibytes(uint64_t n) { return {n << 20}; }

class MemoryBudgetTest : public ::testing::Test {
 protected:
  absl::StatusOr<MemoryShare> Take(uint64_t wanted, uint64_t least) {
    return budget_.Take(Mebibytes(wanted), Mebibytes(least), progress_);
  }
  testing::SimulatedClock clock_;
  observe::Progress progress_{clock_};
  MemoryBudget budget_{Mebibytes(192)};
};

TEST_F(MemoryBudgetTest, TheFirstGetsWhatItWantsAndLeavesSomething) {
  ASSERT_OK_AND_ASSIGN(MemoryShare modest, Take(100, 10));
  EXPECT_EQ(modest.bytes(), Mebibytes(100));
  modest = {};
  EXPECT_EQ(budget_.free(), Mebibytes(192));
  ASSERT_OK_AND_ASSIGN(const MemoryShare greedy, Take(500, 10));
  EXPECT_EQ(greedy.bytes(), Mebibytes(144));
  ASSERT_OK_AND_ASSIGN(const MemoryShare second, Take(500, 10));
  EXPECT_EQ(second.bytes(), Mebibytes(36));
  EXPECT_EQ(budget_.free(), Mebibytes(12));
}

TEST_F(MemoryBudgetTest, OneThatNeedsAllOfItGetsIt) {
  ASSERT_OK_AND_ASSIGN(const MemoryShare share, Take(500, 190));
  EXPECT_EQ(share.bytes(), Mebibytes(190));
}

TEST_F(MemoryBudgetTest, MoreThanThereIsAtAllIsRefused) {
  EXPECT_THAT(Take(500, 193), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("HINT")));
}

TEST_F(MemoryBudgetTest, OneThatDoesNotFitWaitsForAnother) {
  std::optional<MemoryShare> first = *Take(190, 190);
  progress_.SetPhaseObserver([&](const std::string& phase) {
    EXPECT_THAT(phase, HasSubstr("waiting for memory"));
    first.reset();
  });
  ASSERT_OK_AND_ASSIGN(const MemoryShare second, Take(20, 10));
  EXPECT_EQ(second.bytes(), Mebibytes(20));
  EXPECT_FALSE(first.has_value()) << "it had to wait";
}

TEST_F(MemoryBudgetTest, AWaitIsCancelled) {
  ASSERT_OK_AND_ASSIGN(const MemoryShare first, Take(190, 190));
  progress_.SetPhaseObserver([&](const std::string&) { progress_.RequestCancel(); });
  EXPECT_THAT(Take(20, 10), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(budget_.free(), Mebibytes(2));
}

using SharedMemoryTest = BackupTest;

TEST_F(SharedMemoryTest, EveryOperationTakesItsShareAndGivesItBack) {
  MakeCluster();
  MemoryBudget budget{Mebibytes(64)};
  uint64_t least_free = budget.free().value;
  make_engine_ = [&](uring::EngineKind kind, uint32_t depth) {
    least_free = std::min(least_free, budget.free().value);
    return uring::MakeEngine(kind, depth);
  };
  OperationContext context = Context();
  context.memory = &budget;
  const auto taken = [&] {
    EXPECT_LT(least_free, budget.total().value);
    EXPECT_EQ(budget.free(), budget.total());
    least_free = budget.total().value;
  };
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, CreateBackup({}, Source(), context));
  taken();
  VerifyRequest verify;
  verify.backup = info.label;
  ASSERT_OK(VerifyBackup(verify, context));
  taken();
  RestoreRequest restore;
  restore.backup = info.label;
  restore.target_directory = dir_.File("restored");
  ASSERT_OK(RestoreBackup(restore, context));
  taken();
  // An error gives it back too.
  script_.stop = absl::InternalError("stop");
  EXPECT_FALSE(CreateBackup({}, Source(), context).ok());
  taken();
}

TEST_F(SharedMemoryTest, TwoAtOnceWorkWithWhatThereIs) {
  MakeCluster();
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  MemoryBudget budget{Mebibytes(24)};
  VerifyRequest verify;
  verify.backup = info.label;
  absl::Status inner = absl::UnknownError("not run");
  observe::Progress other(clock_);
  make_engine_ = [&](uring::EngineKind kind, uint32_t depth) {
    make_engine_ = nullptr;  // while the outer one holds its share
    OperationContext context{config_, clock_, other};
    context.wal_archive = archive_.get();
    context.memory = &budget;
    inner = VerifyBackup(verify, context).status();
    return uring::MakeEngine(kind, depth);
  };
  OperationContext context = Context();
  context.memory = &budget;
  EXPECT_OK(VerifyBackup(verify, context));
  EXPECT_OK(inner);
}

}  // namespace
}  // namespace metal::backup
