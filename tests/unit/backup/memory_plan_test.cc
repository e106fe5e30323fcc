#include "agent/backup/memory_plan.h"

#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

CopyOptions Options(int level, size_t threads, uint64_t mebibytes) {
  CopyOptions options;
  options.level = level;
  options.threads = threads;
  options.memory = base::ByteCount{mebibytes << 20};
  return options;
}

TEST(MemoryPlanTest, TheDefaultHasRoomForEveryThread) {
  ASSERT_OK_AND_ASSIGN(const MemoryPlan plan, PlanMemory(Options(1, 8, 192)));
  EXPECT_EQ(plan.threads, 8u);
  EXPECT_GT(plan.frames, 2 * plan.threads);
}

TEST(MemoryPlanTest, EncodersCount) {
  ASSERT_OK_AND_ASSIGN(const MemoryPlan low, PlanMemory(Options(1, 16, 192)));
  ASSERT_OK_AND_ASSIGN(const MemoryPlan high, PlanMemory(Options(19, 16, 192)));
  EXPECT_EQ(low.threads, 16u);
  EXPECT_LT(high.threads, 16u);
  EXPECT_GE(high.threads, 1u);
}

TEST(MemoryPlanTest, ItStaysWithinItsMemoryOrIsRefused) {
  bool refused = false;
  for (const int level : {-7, 1, 9, 19}) {
    for (const size_t threads : {1, 4, 64}) {
      for (const uint64_t mebibytes : {16, 32, 64, 256}) {
        const auto plan = PlanMemory(Options(level, threads, mebibytes));
        if (!plan.ok()) {
          EXPECT_THAT(plan, StatusIs(absl::StatusCode::kResourceExhausted,
                                     AllOf(HasSubstr("backup.memory"), HasSubstr("HINT"))));
          refused = true;
          continue;
        }
        EXPECT_LE(plan->bytes, mebibytes << 20);
        EXPECT_GT(plan->frames, plan->threads);
      }
    }
  }
  EXPECT_TRUE(refused);
  EXPECT_OK(PlanMemory(Options(1, 64, 16)));
}

using MemoryTest = BackupTest;

TEST_F(MemoryTest, ALevelThatDoesNotFitIsRefusedBeforeAnythingStarts) {
  MakeCluster();
  config_.backup_memory = base::ByteCount{16 << 20};
  BackupRequest request;
  request.level = 19;
  EXPECT_THAT(Backup(request),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("level 19")));
  EXPECT_FALSE(base::PathExists(config_.repository_path));
}

}  // namespace
}  // namespace metal::backup
