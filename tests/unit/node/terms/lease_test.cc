// The lease's rules by a simulated clock, and what the term store keeps of it.
#include "agent/node/terms/lease.h"

#include <gtest/gtest.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/node/terms/term_store.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

using ::metal::testing::ReasonOf;
using ::metal::testing::StatusIs;

class LeaseTest : public ::testing::Test {
 protected:
  LeaseTest() { Restart(); }
  // The agent ends and is started again.
  void Restart() {
    store_.reset();
    lease_ = std::make_unique<Lease>(
        directory_.File("lease"), [this](const pg::LeasePage&) { return guard_; }, clock_);
    store_ = TermStore::Open(directory_.File("term"), clock_, board_, events_);
    store_->AttachLease(*lease_);
  }
  absl::Status BecomePrimary(absl::Duration ttl) {
    METAL_RETURN_IF_ERROR(store_->BeginTerm(self_));
    return store_->SetRoleWanted(self_, observe::Role::kPrimary, Call(ttl));
  }
  // One that arrives now.
  LeaseCall Call(absl::Duration ttl) { return {ttl, clock_.SinceBoot()}; }
  absl::Status Renew(const TermHolder& who, absl::Duration ttl) {
    return store_->RenewLease(who, Call(ttl));
  }
  // The page as the guard sees it.
  std::unique_ptr<pg::LeasePage> Page() { return *pg::LeasePage::Open(directory_.File("lease")); }
  bool primary() { return store_->Get().MayRunAsPrimary(); }
  observe::LeaseSection shown() { return board_.Get()->node.lease; }

  const TermHolder self_{7, "a"};
  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  observe::StatusBoard board_{clock_};
  metal::testing::RecordedEvents events_;
  absl::Status guard_;
  std::unique_ptr<Lease> lease_;
  std::unique_ptr<TermStore> store_;
};

TEST_F(LeaseTest, RunsOutWithoutARenewalAndForGood) {
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  clock_.Advance(absl::Seconds(6));
  EXPECT_TRUE(primary());
  EXPECT_OK(Renew(self_, absl::Seconds(10)));
  clock_.Advance(absl::Seconds(6));
  EXPECT_TRUE(primary());
  clock_.Advance(absl::Seconds(2));  // 8 s: the ordered stop is due, the deadline is not
  EXPECT_FALSE(primary());
  EXPECT_EQ(ReasonOf(Renew(self_, absl::Seconds(10))), "LEASE_EXPIRED");
  EXPECT_EQ(ReasonOf(store_->SetRoleWanted(self_, observe::Role::kPrimary)), "LEASE_EXPIRED");
  EXPECT_EQ(
      ReasonOf(store_->SetRoleWanted(self_, observe::Role::kPrimary, Call(absl::Seconds(10)))),
      "LEASE_EXPIRED");
  ASSERT_OK(store_->ExpireLease());
  Restart();
  EXPECT_FALSE(primary());
  EXPECT_TRUE(shown().expired);

  const TermHolder next{8, "b"};
  ASSERT_OK(store_->BeginTerm(next));
  EXPECT_TRUE(store_->Get().lease.expired) << "known until somebody is primary again";
  ASSERT_OK(store_->SetRoleWanted(next, observe::Role::kPrimary));
  EXPECT_TRUE(primary());
  EXPECT_FALSE(store_->Get().lease.expired);
  clock_.Advance(absl::Hours(10));
  EXPECT_TRUE(primary()) << "this one has no lease";
}

TEST_F(LeaseTest, ClockStepsDoNotMatterAndSuspensionDoes) {
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  clock_.SetWallClock(clock_.Now() + absl::Hours(24));
  EXPECT_TRUE(primary());
  clock_.SetWallClock(clock_.Now() - absl::Hours(48));
  clock_.Advance(absl::Seconds(6));
  EXPECT_TRUE(primary());
  ASSERT_OK(Renew(self_, absl::Seconds(10)));
  clock_.Suspend(absl::Seconds(10));
  EXPECT_FALSE(primary());
}

TEST_F(LeaseTest, ARestartedAgentFindsTheTimeThatIsLeft) {
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  clock_.Advance(absl::Seconds(4));
  Restart();
  EXPECT_TRUE(primary());
  EXPECT_EQ(shown().ttl, absl::Seconds(10));
  clock_.Advance(absl::Seconds(4));
  EXPECT_FALSE(primary()) << "8 s after the last renewal";
}

TEST_F(LeaseTest, AfterARebootTheLeaseHasRunOut) {
  ASSERT_OK(BecomePrimary(absl::Minutes(5)));
  ASSERT_OK(base::RemoveTree(directory_.File("lease")));  // /run is empty
  Restart();
  EXPECT_FALSE(primary());
  EXPECT_TRUE(shown().expired);
}

TEST_F(LeaseTest, APrimaryWithoutOneGetsItByRenewing) {
  ASSERT_OK(BecomePrimary(absl::ZeroDuration()));
  EXPECT_FALSE(lease_->armed());
  ASSERT_OK(Renew(self_, absl::Seconds(10)));
  EXPECT_TRUE(lease_->armed());
  ASSERT_OK(Renew(self_, absl::Minutes(1)));
  clock_.Advance(absl::Seconds(40));
  EXPECT_TRUE(primary());
  EXPECT_EQ(store_->Get().lease.ttl, absl::Minutes(1));
  EXPECT_OK(store_->SetRoleWanted(self_, observe::Role::kPrimary)) << "ordered again";
  EXPECT_TRUE(store_->Get().HasLease()) << "it keeps the lease";
}

TEST_F(LeaseTest, WithoutAGuardThereIsNone) {
  guard_ = absl::InternalError("no process");
  EXPECT_FALSE(BecomePrimary(absl::Seconds(10)).ok());
  EXPECT_FALSE(primary());
  EXPECT_FALSE(lease_->armed());
  ASSERT_OK(BecomePrimary(absl::ZeroDuration()));
  EXPECT_FALSE(Renew(self_, absl::Seconds(10)).ok());
  EXPECT_TRUE(primary());
}

TEST_F(LeaseTest, OnlyTheOrderedPrimaryOfTheTermHasOne) {
  ASSERT_OK(store_->BeginTerm(self_));
  EXPECT_EQ(ReasonOf(Renew(self_, absl::Seconds(10))), "ROLE_TRANSITION");
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  EXPECT_EQ(ReasonOf(Renew({6, "a"}, absl::Seconds(10))), "STALE_TERM");
  EXPECT_EQ(ReasonOf(Renew({7, "b"}, absl::Seconds(10))), "TERM_HELD");
  EXPECT_THAT(Renew(self_, absl::Milliseconds(999)), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Renew(self_, absl::Seconds(301)), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK(store_->Fence(self_, "test"));
  EXPECT_EQ(ReasonOf(Renew(self_, absl::Seconds(10))), "FENCED");
  ASSERT_OK(store_->Unfence(self_));
  EXPECT_EQ(ReasonOf(Renew(self_, absl::Seconds(10))), "ROLE_TRANSITION");
}

TEST_F(LeaseTest, ANewTermEndsTheLeaseButNotItsGuard) {
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  ASSERT_OK(store_->BeginTerm({8, "b"}));
  EXPECT_FALSE(store_->Get().HasLease());
  EXPECT_TRUE(lease_->armed()) << "the old primary may still run";
  EXPECT_EQ(shown().ttl, absl::ZeroDuration());
}

TEST_F(LeaseTest, CountsFromWhenTheCallArrivedHoweverLongItTook) {
  ASSERT_OK(store_->BeginTerm(self_));
  const LeaseCall promote = Call(absl::Seconds(10));
  clock_.Advance(absl::Seconds(6));  // the process was frozen in the call
  ASSERT_OK(store_->SetRoleWanted(self_, observe::Role::kPrimary, promote));
  const LeaseCall renewal = Call(absl::Seconds(10));
  EXPECT_EQ(lease_->Remaining(), absl::Seconds(4));
  clock_.Advance(absl::Milliseconds(900));
  ASSERT_OK(store_->RenewLease(self_, renewal));
  EXPECT_EQ(lease_->Remaining(), absl::Milliseconds(9100));
  clock_.Advance(absl::Milliseconds(6100));
  EXPECT_FALSE(primary()) << "7 s after the renewal arrived";
}

TEST_F(LeaseTest, OneThatIsOverBeforeItIsGivenIsNotGiven) {
  ASSERT_OK(store_->BeginTerm(self_));
  const LeaseCall call = Call(absl::Seconds(10));
  clock_.Advance(absl::Seconds(7));
  EXPECT_THAT(store_->SetRoleWanted(self_, observe::Role::kPrimary, call),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(lease_->armed());
  EXPECT_FALSE(primary());
  ASSERT_OK(BecomePrimary(absl::Minutes(1))) << "nothing was stored: the term is not lost";
  EXPECT_OK(store_->RenewLease(self_, call)) << "a later one counts";
  EXPECT_EQ(lease_->Remaining(), absl::Minutes(1));
}

TEST_F(LeaseTest, ACallThatIsOvertakenByALaterOneTakesNothingBack) {
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  const LeaseCall promote = Call(absl::Seconds(10));
  clock_.Advance(absl::Seconds(2));
  ASSERT_OK(Renew(self_, absl::Seconds(10)));
  ASSERT_OK(store_->SetRoleWanted(self_, observe::Role::kPrimary, promote));
  EXPECT_EQ(lease_->Remaining(), absl::Seconds(10));
}

TEST_F(LeaseTest, IsNotGivenAgainInATermWhoseGuardHasFired) {
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  // As seen by a call that was frozen after it had found the lease in force.
  const TermRecord seen = store_->Get();
  const LeaseCall call = Call(absl::Seconds(10));
  const auto guard = Page();
  ASSERT_TRUE(guard->Fire(guard->kill_at()));
  EXPECT_EQ(ReasonOf(lease_->Grant(seen, call.arrived)), "LEASE_EXPIRED");
  EXPECT_EQ(ReasonOf(lease_->Renew(seen, call.arrived)), "LEASE_EXPIRED");
  EXPECT_TRUE(lease_->guard_fired());
  EXPECT_FALSE(primary());
  const TermHolder next{8, "b"};
  ASSERT_OK(store_->BeginTerm(next));
  ASSERT_OK(store_->SetRoleWanted(next, observe::Role::kPrimary, Call(absl::Seconds(10))));
  EXPECT_TRUE(primary()) << "that was another term";
}

TEST(GuardsNothingTest, OnlyWhenNoServerOfTheLeaseMayBeAPrimary) {
  using P = observe::PostgresState;
  TermRecord follows;  // term 8, after the lease of term 7
  follows.term = 8;
  observe::PostgresSection standby;
  standby.state = P::kRunning;
  standby.role_observed = observe::Role::kStandby;
  standby.pid = 100;
  EXPECT_TRUE(GuardsNothing(follows, 7, {standby, 100, 0}));
  EXPECT_TRUE(GuardsNothing(follows, 7, {standby, 100, 99})) << "another one was";
  EXPECT_FALSE(GuardsNothing(follows, 7, {standby, 100, 100})) << "seen before it was promoted";
  EXPECT_FALSE(GuardsNothing(follows, 7, {standby, 101, 0})) << "of an earlier server";
  EXPECT_FALSE(GuardsNothing(follows, 7, {standby, 0, 0})) << "not yet looked again";
  for (const P state : {P::kUnresponsive, P::kStarting, P::kStopping, P::kCrashed, P::kUnknown}) {
    observe::PostgresSection other = standby;
    other.state = state;
    EXPECT_FALSE(GuardsNothing(follows, 7, {other, 100, 0}));
  }
  observe::PostgresSection primary = standby;
  primary.role_observed = observe::Role::kPrimary;
  EXPECT_FALSE(GuardsNothing(follows, 7, {primary, 100, 0}));
  observe::PostgresSection stopped;
  stopped.state = P::kStopped;
  EXPECT_TRUE(GuardsNothing(follows, 7, {stopped, 0, 100}));
  EXPECT_FALSE(GuardsNothing(follows, 7, {stopped, 102, 0})) << "started since";

  TermRecord leads = follows;
  leads.role_wanted = observe::Role::kPrimary;
  leads.role_term = 8;
  EXPECT_TRUE(GuardsNothing(leads, 7, {primary, 100, 100})) << "its order has no lease";
  EXPECT_FALSE(GuardsNothing(leads, 8, {standby, 100, 0})) << "it is just being given one";
}

TEST_F(LeaseTest, IsNotTakenAwayByWhoSawAnEarlierOne) {
  ASSERT_OK(BecomePrimary(absl::Seconds(10)));
  const base::MonotonicTime seen = *lease_->KillTime();
  clock_.Advance(absl::Seconds(1));
  ASSERT_OK(Renew(self_, absl::Seconds(10)));
  lease_->DisarmAt(seen);
  EXPECT_TRUE(primary());
  lease_->DisarmAt(*lease_->KillTime());
  EXPECT_FALSE(lease_->armed());
  EXPECT_EQ(lease_->KillTime(), std::nullopt);
}

}  // namespace
}  // namespace metal::node
