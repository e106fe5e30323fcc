#include "agent/disk/faults/fault_desk.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"

namespace metal::disk {
namespace {

using ::testing::UnorderedElementsAre;

std::vector<std::string> Faults(observe::StatusBoard& board) {
  std::vector<std::string> subjects;
  const auto status = board.Get();
  for (const auto& [key, fault] : status->faults) {
    subjects.push_back(fault.subject + (fault.disk->confirmed ? " confirmed" : ""));
  }
  return subjects;
}

TEST(FaultDeskTest, WhoKnowsOnlyTheDiskSpeaksOfEachFilesystemOnIt) {
  metal::testing::SimulatedClock clock;
  metal::testing::RecordedEvents events;
  observe::StatusBoard board(clock);
  FaultDesk desk(board, events, clock);
  desk.SetDisks({{"nvme0n1", {.serial = "S1", .path = "/dev/nvme0n1", .roles = {"data", "wal"}}}});
  Evidence evidence;
  evidence.fault_class = FaultClass::kFilesystemShutdown;
  evidence.witness = Witness::kKernelLog;
  evidence.device = "nvme0n1";
  desk.Take(evidence);
  EXPECT_THAT(Faults(board), UnorderedElementsAre("nvme0n1:data", "nvme0n1:wal"));
  evidence.witness = Witness::kProbe;
  evidence.role = "data";
  desk.Take(evidence);
  EXPECT_THAT(Faults(board), UnorderedElementsAre("nvme0n1:data confirmed", "nvme0n1:wal"));
}

}  // namespace
}  // namespace metal::disk
