// What is left of operations when the agent ends, dies, or loses its journal.
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "tests/unit/node/crash_directory.h"
#include "tests/unit/node/operations/operations_fixture.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST_F(OperationsTest, ShutdownLeavesItToTheNextStart) {
  std::string name;
  {
    auto manager = Open();
    Gate gate;
    ASSERT_OK_AND_ASSIGN(const Operation started,
                         manager->Start(Spec("CreateBackup"), gate.Body()));
    name = started.name;
    manager->Shutdown();
    EXPECT_THAT(manager->Start(Spec("X"), Succeed()), StatusIs(absl::StatusCode::kUnavailable));
  }
  auto manager = Open();
  EXPECT_EQ(manager->Get(name)->state, OperationState::kRunning);
  EXPECT_EQ(manager->Recover(), 0u);
  ASSERT_OK_AND_ASSIGN(const Operation failed, manager->Get(name));
  EXPECT_EQ(failed.state, OperationState::kFailed);
  EXPECT_EQ(ReasonOf(failed.error), "AGENT_RESTARTED");
  EXPECT_EQ(events_.Count("operation.failed"), 1u);
  manager.reset();
  EXPECT_EQ(Open()->Get(name)->state, OperationState::kFailed);
}

TEST_F(OperationsTest, InterruptedOperationIsResumedWhenItsKindKnowsHow) {
  std::string name;
  {
    auto manager = Open();
    Gate gate;
    ASSERT_OK_AND_ASSIGN(const Operation started,
                         manager->Start(Spec("StopPostgres", "r1"), gate.Body()));
    name = started.name;
  }
  auto manager = Open();
  std::string mode;
  manager->RegisterResumer("StopPostgres",
                           [&](const Operation& operation) -> absl::StatusOr<OperationBody> {
                             mode = operation.spec.parameters.at("mode");
                             return Succeed();
                           });
  EXPECT_EQ(manager->Recover(), 1u);
  const Operation done = Done(*manager, name);
  EXPECT_EQ(done.state, OperationState::kSucceeded);
  EXPECT_EQ(mode, "fast");
  EXPECT_EQ(events_.Count("operation.resumed"), 1u);
  EXPECT_EQ(manager->Start(Spec("StopPostgres", "r1"), Succeed())->name, name);
}

OperationManager::Resumer ResumeWith(OperationBody body) {
  return [body](const Operation&) -> absl::StatusOr<OperationBody> { return body; };
}

OperationBody KillTheProcess() {
  return [](OperationContext&) -> absl::StatusOr<OperationResult> {
    ::kill(::getpid(), SIGKILL);
    return OperationResult{};
  };
}

// What kills the agent must not be started by each agent that follows.
TEST_F(OperationsTest, AnOperationThatKillsTheAgentIsResumedOnlyOnce) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const CrashDirectory shared("METAL_TEST_RESUME_DIRECTORY");
  const std::string path = shared.File("operations.db");
  EXPECT_EXIT(
      {
        auto manager = OpenAt(path);
        auto operation = manager->Start(Spec("Kill"), KillTheProcess());
        (void)manager->Wait(operation->name, kLong);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(
      {
        auto manager = OpenAt(path);
        manager->RegisterResumer("Kill", ResumeWith(KillTheProcess()));
        manager->Recover();
        (void)manager->Wait(manager->List(Everything())->operations.at(0).name, kLong);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  auto manager = OpenAt(path);
  manager->RegisterResumer("Kill", ResumeWith(Succeed()));
  EXPECT_EQ(manager->Recover(), 0u);
  ASSERT_OK_AND_ASSIGN(const OperationPage page, manager->List(Everything()));
  ASSERT_EQ(page.operations.size(), 1u);
  EXPECT_EQ(page.operations[0].state, OperationState::kFailed);
  EXPECT_EQ(ReasonOf(page.operations[0].error), "AGENT_RESTARTED");
  EXPECT_THAT(std::string(page.operations[0].error.message()), HasSubstr("second time"));
  EXPECT_THAT(std::string(page.operations[0].error.message()), HasSubstr("HINT: "));
}

TEST_F(OperationsTest, AnOrderlyEndOfTheAgentIsNoCrash) {
  std::string name;
  for (int start = 0; start < 4; ++start) {
    auto manager = Open();
    Gate gate;
    manager->RegisterResumer("Long", ResumeWith(gate.Body()));
    if (start == 0) {
      name = manager->Start(Spec("Long"), gate.Body())->name;
    } else {
      EXPECT_EQ(manager->Recover(), 1u) << start;
    }
    while (gate.entered() == 0) base::RealClock().Sleep(absl::Milliseconds(1));
    manager->Drain();
  }
  EXPECT_EQ(Open()->Get(name)->state, OperationState::kRunning);
}

TEST_F(OperationsTest, CorruptJournalIsMovedAside) {
  const std::string path = directory_.Write("operations.db", std::string(8192, 'x'));
  auto manager = Open();
  ASSERT_NE(manager, nullptr);
  EXPECT_EQ(events_.Count("operation.journal_corrupt"), 1u);
  ASSERT_OK_AND_ASSIGN(const Operation operation, manager->Start(Spec("A"), Succeed()));
  Done(*manager, operation.name);
  ASSERT_OK_AND_ASSIGN(const auto names, base::ListDirectory(directory_.path()));
  EXPECT_THAT(names, ::testing::Contains(::testing::StartsWith("operations.db.corrupt-")));
}

TEST_F(OperationsTest, FullJournalRefusesBeforeItStarts) {
  auto manager = Open();
  // A bound on the database's size is what a full disk looks like to SQLite (SQLITE_FULL).
  ASSERT_OK_AND_ASSIGN(const Operation first, manager->Start(Spec("A"), Succeed()));
  Done(*manager, first.name);
  manager.reset();
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(directory_.File("operations.db").c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database,
                         "CREATE TRIGGER full BEFORE INSERT ON operation WHEN NEW.kind = 'B' BEGIN "
                         "SELECT RAISE(ABORT, 'disk full'); END",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(database);
  manager = Open();
  std::atomic<bool> ran{false};
  const auto refused =
      manager->Start(Spec("B", "r1"), [&](OperationContext&) -> absl::StatusOr<OperationResult> {
        ran = true;
        return OperationResult{};
      });
  EXPECT_THAT(refused.status().message(), HasSubstr("disk full"));
  EXPECT_THAT(refused.status().message(), HasSubstr("B refused"));
  EXPECT_FALSE(ran);
  // The lane is free again and the request is not remembered.
  EXPECT_TRUE(manager->Start(Spec("A", "r1"), Succeed()).ok());
}

// Killed at every step of an operation: the next start finds it finished, interrupted, or never
// begun.
struct CrashStep {
  const char* point;
  size_t operations;
  OperationState state;
};

class OperationCrashTest : public OperationsTest,
                           public ::testing::WithParamInterface<CrashStep> {};

TEST_P(OperationCrashTest, IsReportedAfterTheRestart) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const CrashDirectory shared("METAL_TEST_OPERATIONS_DIRECTORY");
  const std::string path = shared.File("operations.db");
  const std::string plan = std::string(GetParam().point) + "=crash";
  EXPECT_EXIT(
      {
        ::setenv("METAL_FAULT_POINTS", plan.c_str(), 1);
        auto manager = OpenAt(path);
        auto operation = manager->Start(Spec("A"), Succeed());
        if (operation.ok()) (void)manager->Wait(operation->name, kLong);
        ::_exit(0);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  auto manager = OpenAt(path);
  manager->Recover();
  ASSERT_OK_AND_ASSIGN(const OperationPage page, manager->List(Everything()));
  ASSERT_EQ(page.operations.size(), GetParam().operations);
  if (page.operations.empty()) return;
  EXPECT_EQ(page.operations[0].state, GetParam().state);
  if (GetParam().state == OperationState::kFailed) {
    EXPECT_EQ(ReasonOf(page.operations[0].error), "AGENT_RESTARTED");
  }
}

INSTANTIATE_TEST_SUITE_P(
    EveryStep, OperationCrashTest,
    ::testing::Values(CrashStep{"operations.before_journal", 0, OperationState::kFailed},
                      CrashStep{"operations.journaled", 1, OperationState::kFailed},
                      CrashStep{"operations.before_finish", 1, OperationState::kFailed},
                      CrashStep{"operations.finished", 1, OperationState::kSucceeded}));

}  // namespace
}  // namespace metal::node
