#include <gtest/gtest.h>

#include "agent/node/node.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

TermRecord OrderedPrimary() {
  TermRecord record;
  record.term = record.role_term = 3;
  record.orchestrator_id = "a";
  record.role_wanted = observe::Role::kPrimary;
  return record;
}

absl::StatusOr<pg::ControlFile> Control(pg::ControlState state) {
  pg::ControlFile control;
  control.state = state;
  return control;
}

TEST(StartRoleTest, PrimaryNeedsTheOrderAndAServerThatWasOne) {
  using S = pg::ControlState;
  for (const S state : {S::kShutDown, S::kShuttingDown, S::kInCrashRecovery, S::kInProduction}) {
    EXPECT_EQ(DecideStartRole(OrderedPrimary(), Control(state)), pg::StartRole::kPrimary);
    EXPECT_EQ(DecideStartRole(TermRecord(), Control(state)), pg::StartRole::kStandby);
  }
}

TEST(StartRoleTest, PromotionThatNeverHappenedIsNoPrimary) {
  using S = pg::ControlState;
  for (const S state : {S::kStartingUp, S::kShutDownInRecovery, S::kInArchiveRecovery}) {
    EXPECT_EQ(DecideStartRole(OrderedPrimary(), Control(state)), pg::StartRole::kStandby);
  }
}

TEST(StartRoleTest, OutdatedOrFencedOrdersDoNotCount) {
  TermRecord outdated = OrderedPrimary();
  outdated.term = 4;
  TermRecord fenced = OrderedPrimary();
  fenced.fence.active = true;
  const auto control = Control(pg::ControlState::kInProduction);
  EXPECT_EQ(DecideStartRole(outdated, control), pg::StartRole::kStandby);
  EXPECT_EQ(DecideStartRole(fenced, control), pg::StartRole::kStandby);
}

TEST(StartRoleTest, UnreadableControlFileIsAStandby) {
  EXPECT_EQ(DecideStartRole(OrderedPrimary(), absl::DataLossError("pg_control")),
            pg::StartRole::kStandby);
  testing::SimulatedClock clock;
  observe::StatusBoard board(clock);
  metal::testing::RecordedEvents events;
  const testing::TempDir directory;
  const auto terms = TermStore::Open(directory.File("term"), clock, board, events);
  ASSERT_OK(terms->BeginTerm({3, "a"}));
  ASSERT_OK(terms->SetRoleWanted({3, "a"}, observe::Role::kPrimary));
  EXPECT_EQ(DecideStartRole(*terms, directory.path()), pg::StartRole::kStandby);
}

}  // namespace
}  // namespace metal::node
