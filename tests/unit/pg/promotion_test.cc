#include "agent/pg/promotion.h"

#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::metal::testing::FakeServerState;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

class PromotionTest : public ::testing::Test {
 protected:
  void MakeStandby(int polls) {
    server_.Change([polls](FakeServerState& state) {
      state.in_recovery = true;
      state.replayed = base::Lsn{0x7000000};
      state.polls_until_promoted = polls;
    });
  }
  testing::SimulatedClock clock_;
  testing::FakePostgres server_{clock_};
};

TEST_F(PromotionTest, WaitsUntilTheServerLeftRecoveryAndChecksItsTimelineIn) {
  MakeStandby(5);
  ASSERT_OK_AND_ASSIGN(const auto session, server_.Connect());
  ASSERT_OK_AND_ASSIGN(const PromoteResult result, PromoteServer(*session, clock_, {}));
  EXPECT_FALSE(result.was_primary);
  EXPECT_EQ(result.timeline, 2u);
  EXPECT_EQ(server_.state().control_timeline, 2u);
}

TEST_F(PromotionTest, APrimaryIsLeftAsItIs) {
  ASSERT_OK_AND_ASSIGN(const auto session, server_.Connect());
  ASSERT_OK_AND_ASSIGN(const PromoteResult result, PromoteServer(*session, clock_, {}));
  EXPECT_TRUE(result.was_primary);
  EXPECT_FALSE(server_.state().promote_requested);
  EXPECT_EQ(result.timeline, 1u);
}

TEST_F(PromotionTest, APromotionThatDoesNotEndIsReportedAsStillRequested) {
  MakeStandby(-1);
  ASSERT_OK_AND_ASSIGN(const auto session, server_.Connect());
  PromoteOptions options;
  options.timeout = absl::Seconds(5);
  const auto promoted = PromoteServer(*session, clock_, options);
  EXPECT_THAT(promoted,
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("stays requested")));
  EXPECT_EQ(base::GetReason(promoted.status())->reason, "PROMOTION_TIMEOUT");
  options.cancelled = [] { return true; };
  EXPECT_THAT(PromoteServer(*session, clock_, options), StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(PromotionTest, AFailedCheckpointIsAnError) {
  MakeStandby(0);
  server_.On("CHECKPOINT",
             [](const auto&) { return absl::DataLossError("postgres: could not fsync file"); });
  ASSERT_OK_AND_ASSIGN(const auto session, server_.Connect());
  EXPECT_THAT(
      PromoteServer(*session, clock_, {}),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("checkpoint: postgres: could not fsync")));
}

}  // namespace
}  // namespace metal::pg
