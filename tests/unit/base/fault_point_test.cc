#include "agent/base/fault_point.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "agent/base/fault_plan.h"
#include "agent/base/file.h"
#include "agent/base/thread.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::base {
namespace {

using ::testing::Eq;
using testing::IsOkAndHolds;
using testing::StatusIs;
using testing::TempDir;

TEST(FaultPointTest, NothingHappensWithoutTheEnvironment) {
  if (std::getenv("METAL_FAULT_POINTS") != nullptr) GTEST_SKIP() << "METAL_FAULT_POINTS is set";
  EXPECT_OK(FaultPoint("backup.before_publish"));
}

TEST(FaultPlanTest, ErrorFailsItsPointOnly) {
  FaultPlan plan("backup.copy=error", "", "");
  EXPECT_TRUE(plan.active());
  EXPECT_OK(plan.Pass("backup.other"));
  EXPECT_THAT(plan.Pass("backup.copy"),
              StatusIs(absl::StatusCode::kInternal, Eq("fault point backup.copy")));
}

TEST(FaultPlanTest, ErrorFailsAtTheNthPassAndNoOther) {
  FaultPlan plan("restore.file=error@3;unused.point=error", "", "");
  EXPECT_OK(plan.Pass("restore.file"));
  EXPECT_OK(plan.Pass("restore.file"));
  EXPECT_THAT(plan.Pass("restore.file"), StatusIs(absl::StatusCode::kInternal));
  EXPECT_OK(plan.Pass("restore.file"));
}

TEST(FaultPlanTest, EntriesThatCannotBeReadAreLeftOut) {
  FaultPlan plan(";;nonsense;=error;a.b=explode;c.d=error@0;e.f=error@x;g.h=error;", "", "");
  for (const char* name : {"nonsense", "", "a.b", "c.d", "e.f"}) EXPECT_OK(plan.Pass(name));
  EXPECT_FALSE(plan.Pass("g.h").ok());
}

TEST(FaultPlanTest, EmptyPlanIsNotActive) { EXPECT_FALSE(FaultPlan("", "", "").active()); }

TEST(FaultPlanTest, TraceNamesEachPassedPointOnce) {
  const TempDir dir;
  FaultPlan plan("", "", dir.File("trace"));
  EXPECT_TRUE(plan.active());
  for (const char* name : {"a.one", "a.two", "a.one"}) EXPECT_OK(plan.Pass(name));
  EXPECT_THAT(ReadFile(dir.File("trace")), IsOkAndHolds(Eq("a.one\na.two\n")));
}

TEST(FaultPlanTest, PauseLastsUntilTheFileIsRemovedAndComesAtEachPass) {
  const TempDir dir;
  FaultPlan plan("pg.start=pause", dir.File("pause"), "");
  for (int pass = 1; pass <= 2; ++pass) {
    const std::string pause_file = dir.Write("pause", "");
    std::atomic<bool> begun = false;
    bool passed = false;
    Thread thread("paused", [&] {
      begun = true;
      passed = plan.Pass("pg.start").ok() && !PathExists(pause_file);
    });
    while (!begun) std::this_thread::yield();
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();  // one that does not wait passes now
    ASSERT_OK(RemoveTree(pause_file));
    thread.Join();
    EXPECT_TRUE(passed) << "pass " << pass;
  }
}

TEST(FaultPlanTest, PauseAtOnePassLetsTheOthersGo) {
  const TempDir dir;
  FaultPlan plan("pg.start=pause@2", dir.Write("pause", ""), "");
  EXPECT_OK(plan.Pass("pg.start"));
}

TEST(FaultPlanDeathTest, CrashKillsTheProcess) {
  EXPECT_EXIT(
      {
        FaultPlan plan("backup.publish=crash@2", "", "");
        plan.Pass("backup.publish").IgnoreError();
        plan.Pass("backup.publish").IgnoreError();
      },
      ::testing::KilledBySignal(SIGKILL), "");
}

}  // namespace
}  // namespace metal::base
