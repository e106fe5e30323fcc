#include "agent/node/operations.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>

#include <atomic>
#include <future>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/node/crash_directory.h"
#include "tests/unit/node/memory_event_log.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(20);  // only a hang takes as long

std::string ReasonOf(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  return reason ? reason->reason : "";
}

OperationSpec Spec(const std::string& kind, const std::string& request_id = "",
                   OperationLane lane = OperationLane::kAction) {
  OperationSpec spec;
  spec.kind = kind;
  spec.subject = "postgres";
  spec.parameters = {{"mode", "fast"}};
  spec.lane = lane;
  spec.request.request_id = request_id;
  spec.request.caller = "uid:0";
  return spec;
}

OperationBody Succeed() {
  return [](OperationContext&) -> absl::StatusOr<OperationResult> {
    return OperationResult{"things/1", {{"answer", "42"}}};
  };
}

OperationFilter Everything() {
  OperationFilter filter;
  filter.page_size = 1000;
  return filter;
}

// A body that runs until it is let go or cancelled.
class Gate {
 public:
  OperationBody Body() {
    return [this](OperationContext& context) -> absl::StatusOr<OperationResult> {
      ++entered_;
      while (!open_) {
        METAL_RETURN_IF_ERROR(context.progress.CheckCancelled());
        base::RealClock().Sleep(absl::Milliseconds(1));
      }
      return OperationResult{};
    };
  }
  void Open() { open_ = true; }
  int entered() const { return entered_; }

 private:
  std::atomic<bool> open_{false};
  std::atomic<int> entered_{0};
};

class OperationsTest : public ::testing::Test {
 protected:
  std::unique_ptr<OperationManager> OpenAt(const std::string& path, size_t keep = 1000) {
    OperationManagerOptions options;
    options.path = path;
    options.keep = keep;
    auto manager = OperationManager::Open(options, clock_, board_, events_);
    EXPECT_TRUE(manager.ok()) << manager.status();
    return manager.ok() ? *std::move(manager) : nullptr;
  }
  std::unique_ptr<OperationManager> Open(size_t keep = 1000) {
    return OpenAt(directory_.File("operations.db"), keep);
  }
  Operation Done(OperationManager& manager, const std::string& name) {
    auto operation = manager.Wait(name, kLong);
    EXPECT_TRUE(operation.ok()) << operation.status();
    EXPECT_TRUE(operation->done());
    return *operation;
  }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  observe::StatusBoard board_{clock_};
  MemoryEventLog events_;
};

TEST_F(OperationsTest, RunsToItsResult) {
  auto manager = Open();
  ASSERT_OK_AND_ASSIGN(const Operation started, manager->Start(Spec("StopPostgres"), Succeed()));
  EXPECT_TRUE(started.name.starts_with("operations/"));
  const Operation done = Done(*manager, started.name);
  EXPECT_EQ(done.state, OperationState::kSucceeded);
  EXPECT_EQ(done.result.name, "things/1");
  EXPECT_EQ(done.result.values.at("answer"), "42");
  EXPECT_EQ(done.spec.request.caller, "uid:0");
  EXPECT_EQ(events_.Count("operation.started"), 1u);
  EXPECT_EQ(events_.Count("operation.finished"), 1u);
}

TEST_F(OperationsTest, FailureKeepsItsReason) {
  auto manager = Open();
  ASSERT_OK_AND_ASSIGN(
      const Operation started,
      manager->Start(
          Spec("CreateBackup"), [](OperationContext&) -> absl::StatusOr<OperationResult> {
            return base::WithReason(absl::ResourceExhaustedError("write pack 3: no space left"),
                                    {.reason = "NO_SPACE", .metadata = {{"path", "/r=epo"}}});
          }));
  EXPECT_EQ(Done(*manager, started.name).state, OperationState::kFailed);
  EXPECT_EQ(events_.Count("operation.failed"), 1u);
  manager.reset();
  // From the journal it reads the same.
  manager = Open();
  ASSERT_OK_AND_ASSIGN(const Operation loaded, manager->Get(started.name));
  EXPECT_EQ(loaded.error.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(loaded.error), "NO_SPACE");
  EXPECT_EQ(base::GetReason(loaded.error)->metadata.at("path"), "/r=epo");
  EXPECT_EQ(loaded.spec.parameters.at("mode"), "fast");
}

TEST_F(OperationsTest, SecondActionIsAbortedNamingTheHolder) {
  auto manager = Open();
  Gate gate;
  ASSERT_OK_AND_ASSIGN(const Operation first, manager->Start(Spec("StopPostgres"), gate.Body()));
  clock_.Advance(absl::Seconds(7));
  const auto second = manager->Start(Spec("StartPostgres"), Succeed());
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kAborted,
                               ::testing::AllOf(HasSubstr(first.name), HasSubstr("StopPostgres"),
                                                HasSubstr("7 s"))));
  EXPECT_EQ(ReasonOf(second.status()), "ACTION_IN_PROGRESS");
  gate.Open();
  Done(*manager, first.name);
  // Who saw the end may start the next one at once.
  EXPECT_TRUE(manager->Start(Spec("StartPostgres"), Succeed()).ok());
}

TEST_F(OperationsTest, LanesAreBoundedAndIndependent) {
  auto manager = Open();
  Gate gate;
  std::vector<std::string> names;
  const auto start = [&](OperationLane lane) {
    auto started = manager->Start(Spec("X", "", lane), gate.Body());
    if (started.ok()) names.push_back(started->name);
    return started.status();
  };
  EXPECT_OK(start(OperationLane::kAction));
  EXPECT_OK(start(OperationLane::kBackup));
  for (int i = 0; i < 4; ++i) EXPECT_OK(start(OperationLane::kReader));
  for (const OperationLane lane :
       {OperationLane::kAction, OperationLane::kBackup, OperationLane::kReader}) {
    EXPECT_THAT(start(lane), StatusIs(absl::StatusCode::kAborted));
  }
  gate.Open();
  for (const std::string& name : names) Done(*manager, name);
  EXPECT_EQ(gate.entered(), 6);
}

TEST_F(OperationsTest, SameRequestGivesTheSameOperation) {
  auto manager = Open();
  std::atomic<int> runs{0};
  const OperationBody body = [&](OperationContext&) -> absl::StatusOr<OperationResult> {
    ++runs;
    return OperationResult{};
  };
  ASSERT_OK_AND_ASSIGN(const Operation first, manager->Start(Spec("StopPostgres", "r1"), body));
  Done(*manager, first.name);
  ASSERT_OK_AND_ASSIGN(const Operation again, manager->Start(Spec("StopPostgres", "r1"), body));
  EXPECT_EQ(again.name, first.name);
  manager.reset();
  manager = Open();  // also after a restart
  ASSERT_OK_AND_ASSIGN(const Operation later, manager->Start(Spec("StopPostgres", "r1"), body));
  EXPECT_EQ(later.name, first.name);
  EXPECT_EQ(runs, 1);

  OperationSpec other = Spec("StopPostgres", "r1");
  other.parameters["mode"] = "smart";
  const auto reused = manager->Start(other, body);
  EXPECT_THAT(reused, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(ReasonOf(reused.status()), "REQUEST_ID_REUSED");

  clock_.Advance(absl::Hours(25));  // forgotten by now
  ASSERT_OK_AND_ASSIGN(const Operation fresh, manager->Start(other, body));
  EXPECT_NE(fresh.name, first.name);
  Done(*manager, fresh.name);
}

TEST_F(OperationsTest, ShortCallsAreRememberedToo) {
  auto manager = Open();
  int runs = 0;
  const auto run = [&]() -> absl::StatusOr<std::string> {
    ++runs;
    return std::string("bytes\0with nul", 14);
  };
  RequestContext request;
  request.request_id = "r1";
  request.body_hash = "h1";
  ASSERT_OK_AND_ASSIGN(const std::string first, manager->RunOnce(request, "ApplyConfig", run));
  manager.reset();
  manager = Open();
  ASSERT_OK_AND_ASSIGN(const std::string again, manager->RunOnce(request, "ApplyConfig", run));
  EXPECT_EQ(first, again);
  EXPECT_EQ(runs, 1);

  EXPECT_EQ(ReasonOf(manager->RunOnce(request, "ReloadConfig", run).status()), "REQUEST_ID_REUSED");
  // An operation may not take the id of a short call, nor the other way round.
  EXPECT_EQ(ReasonOf(manager->Start(Spec("StopPostgres", "r1"), Succeed()).status()),
            "REQUEST_ID_REUSED");
  ASSERT_OK_AND_ASSIGN(const Operation operation, manager->Start(Spec("X", "r2"), Succeed()));
  Done(*manager, operation.name);
  request.request_id = "r2";
  EXPECT_EQ(ReasonOf(manager->RunOnce(request, "ApplyConfig", run).status()), "REQUEST_ID_REUSED");
  request.body_hash = "h2";
  request.request_id = "r1";
  EXPECT_EQ(ReasonOf(manager->RunOnce(request, "ApplyConfig", run).status()), "REQUEST_ID_REUSED");

  clock_.Advance(absl::Hours(25));
  EXPECT_TRUE(manager->RunOnce(request, "ApplyConfig", run).ok());
  EXPECT_EQ(runs, 2);
}

TEST_F(OperationsTest, ErrorsOfShortCallsAreNotRemembered) {
  auto manager = Open();
  RequestContext request;
  request.request_id = "r1";
  EXPECT_FALSE(
      manager
          ->RunOnce(request, "ReloadConfig",
                    [] { return absl::StatusOr<std::string>(absl::UnavailableError("x")); })
          .ok());
  EXPECT_TRUE(
      manager->RunOnce(request, "ReloadConfig", [] { return absl::StatusOr<std::string>("y"); })
          .ok());
}

TEST_F(OperationsTest, CancelEndsItAsCancelled) {
  auto manager = Open();
  Gate gate;
  ASSERT_OK_AND_ASSIGN(const Operation started, manager->Start(Spec("CreateBackup"), gate.Body()));
  ASSERT_OK_AND_ASSIGN(const Operation asked, manager->Cancel(started.name));
  EXPECT_TRUE(asked.cancel_requested);
  const Operation done = Done(*manager, started.name);
  EXPECT_EQ(done.state, OperationState::kCancelled);
  EXPECT_EQ(ReasonOf(done.error), "CANCELLED");
  EXPECT_EQ(events_.Count("operation.cancelled"), 1u);
  EXPECT_TRUE(manager->Cancel(started.name).ok());  // idempotent
  EXPECT_THAT(manager->Cancel("operations/none"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(OperationsTest, WatchSeesPhasesAndTheEnd) {
  auto manager = Open();
  std::promise<void> go_on;
  ASSERT_OK_AND_ASSIGN(
      const Operation started,
      manager->Start(Spec("CreateBackup"),
                     [&](OperationContext& context) -> absl::StatusOr<OperationResult> {
                       context.progress.BeginPhase("copying files", 1000);
                       context.progress.AddDone(250);
                       go_on.get_future().wait();
                       context.progress.BeginPhase("waiting for WAL");
                       return OperationResult{};
                     }));
  uint64_t revision = 0;
  std::vector<std::string> phases;
  bool released = false;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const Operation view,
                         manager->WaitForChange(started.name, revision, kLong));
    ASSERT_GT(view.revision, revision);
    revision = view.revision;
    phases.push_back(view.progress.phase);
    if (view.done()) break;
    if (view.progress.phase == "copying files" && !released) {
      EXPECT_EQ(view.progress.total_bytes, 1000u);
      released = true;
      go_on.set_value();
    }
  }
  EXPECT_THAT(phases, ::testing::Contains("copying files"));
  EXPECT_EQ(phases.back(), "waiting for WAL");
  // Nothing more to come: the same revision, after the timeout.
  ASSERT_OK_AND_ASSIGN(const Operation last,
                       manager->WaitForChange(started.name, revision, absl::Milliseconds(1)));
  EXPECT_EQ(last.revision, revision);
}

TEST_F(OperationsTest, WaitTimesOutWithTheRunningOperation) {
  auto manager = Open();
  Gate gate;
  ASSERT_OK_AND_ASSIGN(const Operation started, manager->Start(Spec("X"), gate.Body()));
  ASSERT_OK_AND_ASSIGN(const Operation view, manager->Wait(started.name, absl::Milliseconds(5)));
  EXPECT_FALSE(view.done());
  gate.Open();
}

TEST_F(OperationsTest, PagesCoverEverythingOnceNewestFirst) {
  auto manager = Open();
  std::vector<std::string> names;
  for (int i = 0; i < 25; ++i) {
    ASSERT_OK_AND_ASSIGN(const Operation operation,
                         manager->Start(Spec(i % 2 == 0 ? "A" : "B"), Succeed()));
    Done(*manager, operation.name);
    names.push_back(operation.name);
    if (i % 3 == 0) clock_.Advance(absl::Seconds(1));
    if (i == 12)
      clock_.SetWallClock(clock_.Now() - absl::Hours(1));  // names still sort by creation
  }
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  std::vector<std::string> listed;
  OperationFilter filter;
  filter.page_size = 4;
  do {
    ASSERT_OK_AND_ASSIGN(const OperationPage page, manager->List(filter));
    EXPECT_LE(page.operations.size(), 4u);
    for (const Operation& operation : page.operations) listed.push_back(operation.name);
    filter.page_token = page.next_page_token;
  } while (!filter.page_token.empty());
  std::reverse(names.begin(), names.end());
  EXPECT_EQ(listed, names);

  filter.page_size = 100;
  filter.kind = "B";
  ASSERT_OK_AND_ASSIGN(const OperationPage of_kind, manager->List(filter));
  EXPECT_EQ(of_kind.operations.size(), 12u);
  filter.unfinished = true;
  EXPECT_TRUE(manager->List(filter)->operations.empty());
  filter.page_token = "nonsense";
  EXPECT_THAT(manager->List(filter), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(OperationsTest, OnlyTheNewestAreKept) {
  auto manager = Open(/*keep=*/10);
  std::string first;
  for (int i = 0; i < 30; ++i) {
    ASSERT_OK_AND_ASSIGN(const Operation operation, manager->Start(Spec("A"), Succeed()));
    Done(*manager, operation.name);
    if (i == 0) first = operation.name;
  }
  manager.reset();
  manager = Open(10);
  ASSERT_OK_AND_ASSIGN(const OperationPage page, manager->List(Everything()));
  EXPECT_EQ(page.operations.size(), 10u);
  EXPECT_THAT(manager->Get(first), StatusIs(absl::StatusCode::kNotFound));
}

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

TEST_F(OperationsTest, BoardShowsTheRunningOperation) {
  auto manager = Open();
  Gate gate;
  ASSERT_OK_AND_ASSIGN(const Operation started, manager->Start(Spec("CreateBackup"), gate.Body()));
  uint64_t revision = 0;
  while (!board_.Get()->operation.running) {
    revision = board_.WaitAfter(revision, absl::Seconds(1))->revision;
  }
  EXPECT_EQ(board_.Get()->operation.name, started.name);
  gate.Open();
  Done(*manager, started.name);
  while (board_.Get()->operation.running) {
    revision = board_.WaitAfter(revision, absl::Seconds(1))->revision;
  }
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
