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

TEST(FaultDeskTest, WhoKnowsOnlyTheRoleMeetsTheOthersOnItsDisk) {
  metal::testing::SimulatedClock clock;
  metal::testing::RecordedEvents events;
  observe::StatusBoard board(clock);
  FaultDesk desk(board, events, clock);
  Evidence pages;
  pages.fault_class = FaultClass::kCorruption;
  pages.witness = Witness::kChecksums;
  pages.role = "data";
  desk.SetDisks({{"nvme0n1", {.serial = "S1", .path = "/dev/nvme0n1", .roles = {"data", "wal"}}}});
  desk.Take(pages);
  EXPECT_THAT(Faults(board), UnorderedElementsAre("nvme0n1"));
  Evidence block = pages;
  block.witness = Witness::kProbe;
  block.device = "nvme0n1";
  block.role = "wal";
  desk.Take(block);
  EXPECT_THAT(Faults(board), UnorderedElementsAre("nvme0n1 confirmed"));
  EXPECT_EQ(board.Get()->faults.begin()->second.disk->serial, "S1");
}

TEST(FaultDeskTest, AnotherDriveUnderTheNameTakesNothingOver) {
  metal::testing::SimulatedClock clock;
  metal::testing::RecordedEvents events;
  observe::StatusBoard board(clock);
  FaultDesk desk(board, events, clock);
  const auto own = [&](const std::string& serial) {
    desk.SetDisks({{"nvme0n1", {.serial = serial, .path = "/dev/nvme0n1", .roles = {"data"}}}});
  };
  Evidence evidence;
  evidence.fault_class = FaultClass::kGone;
  evidence.witness = Witness::kSysfs;
  evidence.device = "nvme0n1";
  own("");
  desk.Take(evidence);
  own("S1");
  own("");
  EXPECT_THAT(Faults(board), UnorderedElementsAre("nvme0n1 confirmed")) << "nothing was known";
  own("S1");
  own("S2");
  EXPECT_THAT(Faults(board), UnorderedElementsAre());
  const observe::Event cleared = events.events().back();
  EXPECT_EQ(cleared.type, "disk.fault_cleared");
  EXPECT_EQ(cleared.attributes.at("serial"), "S1");
  desk.Take(evidence);
  EXPECT_THAT(Faults(board), UnorderedElementsAre("nvme0n1 confirmed"));
}

// The reaction that the status shows for a fault of the class, seen by these.
std::string ReactionTo(const ReactionPolicy& policy, FaultClass fault_class,
                       const std::vector<Witness>& witnesses) {
  metal::testing::SimulatedClock clock;
  metal::testing::RecordedEvents events;
  observe::StatusBoard board(clock);
  FaultDesk desk(board, events, clock);
  desk.SetPolicy(policy);
  for (const Witness witness : witnesses) {
    Evidence evidence;
    evidence.fault_class = fault_class;
    evidence.witness = witness;
    evidence.device = "nvme0n1";
    desk.Take(evidence);
  }
  return board.Get()->faults.begin()->second.disk->reaction;
}

TEST(FaultDeskTest, AClassThatIsNamedAsksForWhatTheConfigurationSays) {
  const ReactionPolicy policy = MakeReactionPolicy(
      "drain", {{"write_error", "demote"}, {"media_error", "observe"}, {"slow", "demote"}});
  const std::vector<Witness> one = {Witness::kKernelLog};
  EXPECT_EQ(ReactionTo(policy, FaultClass::kWriteError, one), "demote") << "above disk.reaction";
  EXPECT_EQ(ReactionTo(policy, FaultClass::kMediaError, one), "observe") << "below its row";
  EXPECT_EQ(ReactionTo(policy, FaultClass::kGone, one), "drain") << "not named: disk.reaction";
  EXPECT_EQ(ReactionTo(policy, FaultClass::kFull, one), "observe") << "not named: its row";
}

TEST(FaultDeskTest, NoClassThatItsRowDoesNotDemoteIsDemotedOnTheWordOfOneSource) {
  const ReactionPolicy policy = MakeReactionPolicy("drain", {{"unreliable", "demote"}});
  EXPECT_EQ(ReactionTo(policy, FaultClass::kUnreliable, {Witness::kSmartLog}), "drain");
  EXPECT_EQ(ReactionTo(policy, FaultClass::kUnreliable, {Witness::kSmartLog, Witness::kErrorLog}),
            "drain")
      << "both are the drive";
  EXPECT_EQ(ReactionTo(policy, FaultClass::kUnreliable, {Witness::kSmartLog, Witness::kUevent}),
            "demote");
}

}  // namespace
}  // namespace metal::disk
