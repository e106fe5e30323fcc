#include "agent/pg/desired_state.h"

#include "gmock/gmock.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;

TEST(DesiredStateTest, EveryStateSurvivesTheFile) {
  testing::TempDir dir;
  EXPECT_EQ(*LoadDesiredState(dir.path()), DesiredState{});
  for (const DesiredState& state : {DesiredState{true, false, StartRole::kStandby},
                                    DesiredState{true, false, StartRole::kPrimary},
                                    DesiredState{true, true, StartRole::kPrimary},
                                    DesiredState{false, false, StartRole::kPrimary}}) {
    ASSERT_OK(StoreDesiredState(dir.path(), state));
    EXPECT_EQ(*LoadDesiredState(dir.path()), state);
  }
}

TEST(DesiredStateTest, GarbageIsAnErrorNotAGuess) {
  for (const char* text :
       {"", "running", "running primary", "running primary\nx", "Running primary\n"}) {
    EXPECT_THAT(ParseDesiredState(text), StatusIs(absl::StatusCode::kInvalidArgument)) << text;
  }
}

TEST(DesiredStateTest, PowerLossAtAnyCallLeavesTheOldOrTheNewState) {
  const DesiredState before{true, false, StartRole::kPrimary};
  const DesiredState after{false, false, StartRole::kPrimary};
  bool finished = false;
  for (int at = 1; !finished; ++at) {
    ASSERT_LT(at, 50);
    testing::TempDir dir;
    ASSERT_OK(StoreDesiredState(dir.path(), before));
    absl::Status status;
    {
      testing::FileFaults faults(dir.path(), {at, testing::FileFaultKind::kPowerLoss});
      status = StoreDesiredState(dir.path(), after);
      finished = !faults.fired();
    }
    ASSERT_OK_AND_ASSIGN(const DesiredState found, LoadDesiredState(dir.path()));
    EXPECT_TRUE(found == before || found == after) << "call " << at;
    if (finished) {
      EXPECT_OK(status);
    }
    if (status.ok()) {
      EXPECT_EQ(found, after);
    }
  }
}

}  // namespace
}  // namespace metal::pg
