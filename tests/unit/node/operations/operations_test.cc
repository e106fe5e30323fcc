#include "agent/node/operations/operations.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "tests/unit/node/operations/operations_fixture.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

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

TEST_F(OperationsTest, LaneIsFreeForWhoSawTheEnd) {
  auto manager = Open();
  for (const OperationLane lane : {OperationLane::kAction, OperationLane::kBackup}) {
    for (int i = 0; i < 50; ++i) {
      ASSERT_OK_AND_ASSIGN(const Operation started, manager->Start(Spec("X", "", lane), Succeed()));
      Done(*manager, started.name);
    }
  }
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

}  // namespace
}  // namespace metal::node
