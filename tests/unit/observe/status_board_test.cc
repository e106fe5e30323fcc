#include "agent/observe/status_board.h"

#include <gtest/gtest.h>

#include "agent/base/thread.h"
#include "tests/harness/simulated_clock.h"

namespace metal::observe {
namespace {

using testing::SimulatedClock;

TEST(StatusBoardTest, SnapshotDoesNotChangeAfterItWasTaken) {
  SimulatedClock clock;
  StatusBoard board(clock);
  board.Update([](NodeStatus& status) { status.node.node_id = "a"; });
  const auto before = board.Get();
  clock.Advance(absl::Seconds(1));
  board.Update([](NodeStatus& status) { status.node.node_id = "b"; });
  EXPECT_EQ(before->node.node_id, "a");
  EXPECT_EQ(board.Get()->node.node_id, "b");
  EXPECT_EQ(board.Get()->revision, before->revision + 1);
  EXPECT_EQ(board.Get()->captured_at - before->captured_at, absl::Seconds(1));
  EXPECT_EQ(board.Get()->monotonic - before->monotonic, absl::Seconds(1));
}

TEST(StatusBoardTest, UpdatesOfOneSectionKeepTheOthers) {
  SimulatedClock clock;
  StatusBoard board(clock);
  board.Update([](NodeStatus& status) { status.postgres.port = 5432; });
  board.Update([](NodeStatus& status) { status.disks.emplace_back().device = "nvme0n1"; });
  EXPECT_EQ(board.Get()->postgres.port, 5432);
  EXPECT_EQ(board.Get()->disks.at(0).device, "nvme0n1");
}

TEST(StatusBoardTest, ChangeCannotSetTheRevision) {
  SimulatedClock clock;
  StatusBoard board(clock);
  const uint64_t before = board.Get()->revision;
  board.Update([](NodeStatus& status) { status.revision = 77; });
  EXPECT_EQ(board.Get()->revision, before + 1);
}

TEST(StatusBoardTest, RevisionsOfTheNextRunAreAboveThoseOfTheLast) {
  SimulatedClock clock;
  uint64_t last = 0;
  {
    StatusBoard board(clock);
    for (int i = 0; i < 50; ++i) board.Update([](NodeStatus&) {});
    last = board.Get()->revision;
  }
  clock.Advance(absl::Milliseconds(100));
  StatusBoard board(clock);
  EXPECT_GT(board.Get()->revision, last);
  EXPECT_EQ(board.WaitAfter(last, absl::InfiniteDuration()), board.Get());
}

TEST(StatusBoardTest, WaitAnswersAtOnceWhenThereIsSomethingNewer) {
  SimulatedClock clock;
  StatusBoard board(clock);
  const uint64_t before = board.Get()->revision;
  board.Update([](NodeStatus&) {});
  EXPECT_EQ(board.WaitAfter(before, absl::InfiniteDuration())->revision, before + 1);
}

TEST(StatusBoardTest, WaitAnswersTheCurrentOneAtTheTimeout) {
  SimulatedClock clock;
  StatusBoard board(clock);
  EXPECT_EQ(board.WaitAfter(board.Get()->revision, absl::Milliseconds(5)), board.Get());
}

TEST(StatusBoardTest, WaiterIsWokenByAnUpdate) {
  SimulatedClock clock;
  StatusBoard board(clock);
  const uint64_t before = board.Get()->revision;
  uint64_t seen = 0;
  base::Thread waiter("waiter",
                      [&] { seen = board.WaitAfter(before, absl::Seconds(60))->revision; });
  board.Update([](NodeStatus&) {});
  waiter.Join();
  EXPECT_EQ(seen, before + 1);
}

TEST(StatusBoardTest, NoUpdateIsLostBetweenThreads) {
  SimulatedClock clock;
  StatusBoard board(clock);
  const uint64_t before = board.Get()->revision;
  {
    std::vector<base::Thread> writers;
    for (int i = 0; i < 4; ++i) {
      writers.emplace_back("writer", [&] {
        for (int n = 0; n < 250; ++n)
          board.Update([](NodeStatus& status) { ++status.postgres.connections; });
      });
    }
  }
  EXPECT_EQ(board.Get()->postgres.connections, 1000);
  EXPECT_EQ(board.Get()->revision, before + 1000);
}

Fault Stalled(const SimulatedClock&, std::string message, absl::Time since) {
  return {.fault_class = "stalled",
          .subject = "nvme0n1",
          .severity = Severity::kError,
          .message = std::move(message),
          .since = since};
}

TEST(StatusBoardTest, FaultRaisedAgainKeepsItsFirstTime) {
  SimulatedClock clock;
  StatusBoard board(clock);
  const absl::Time first = clock.Now();
  board.RaiseFault(Stalled(clock, "3 s", first));
  clock.Advance(absl::Seconds(5));
  board.RaiseFault(Stalled(clock, "8 s", clock.Now()));
  const auto status = board.Get();
  ASSERT_EQ(status->faults.size(), 1u);
  const Fault& fault = status->faults.at("stalled/nvme0n1");
  EXPECT_EQ(fault.since, first);
  EXPECT_EQ(fault.message, "8 s");
  EXPECT_EQ(fault.severity, Severity::kError);
}

TEST(StatusBoardTest, ClearedFaultIsGoneAndStartsAnew) {
  SimulatedClock clock;
  StatusBoard board(clock);
  board.RaiseFault(Stalled(clock, "x", clock.Now()));
  board.ClearFault("stalled", "nvme0n1");
  EXPECT_TRUE(board.Get()->faults.empty());
  clock.Advance(absl::Hours(1));
  board.RaiseFault(Stalled(clock, "x", clock.Now()));
  EXPECT_EQ(board.Get()->faults.at("stalled/nvme0n1").since, clock.Now());
}

TEST(StatusBoardTest, ClearingWhatIsNotThereMakesNoRevision) {
  SimulatedClock clock;
  StatusBoard board(clock);
  const uint64_t before = board.Get()->revision;
  board.ClearFault("stalled", "nvme0n1");
  EXPECT_EQ(board.Get()->revision, before);
}

}  // namespace
}  // namespace metal::observe
