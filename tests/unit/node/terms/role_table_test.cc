#include "agent/node/terms/role_table.h"

#include <gtest/gtest.h>

#include <set>

#include "agent/base/status.h"
#include "tests/harness/status_matchers.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;

TEST(RoleTableTest, EveryPairIsDefinedOnce) {
  std::set<std::pair<RoleState, RoleRequest>> seen;
  for (const RoleRule& rule : RoleTable()) {
    EXPECT_TRUE(seen.insert({rule.state, rule.request}).second)
        << RoleStateName(rule.state) << " × " << RoleRequestName(rule.request);
    EXPECT_EQ(&FindRule(rule.state, rule.request), &rule);
    // A refusal changes nothing.
    if (!rule.allowed()) {
      EXPECT_EQ(rule.next, rule.state);
    }
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(kRoleStates * kRoleRequests));
}

TEST(RoleTableTest, EveryStateIsReachable) {
  // kRogue and kUnsettled are also observed (a foreign start, a crash): those are where every
  // search may begin beside an empty host.
  std::set<RoleState> reached = {RoleState::kEmpty, RoleState::kRogue};
  for (bool grew = true; grew;) {
    grew = false;
    for (const RoleRule& rule : RoleTable()) {
      if (rule.allowed() && reached.contains(rule.state)) grew |= reached.insert(rule.next).second;
    }
  }
  EXPECT_EQ(reached.size(), static_cast<size_t>(kRoleStates));
}

TEST(RoleTableTest, EveryStateCanBeLeftAndCanBecomePrimary) {
  // Backwards from the primary: no state is a dead end (a goal without an edge).
  std::set<RoleState> leads = {RoleState::kPrimary};
  for (bool grew = true; grew;) {
    grew = false;
    for (const RoleRule& rule : RoleTable()) {
      if (rule.allowed() && leads.contains(rule.next)) grew |= leads.insert(rule.state).second;
    }
  }
  EXPECT_EQ(leads.size(), static_cast<size_t>(kRoleStates));
}

TEST(RoleTableTest, EveryRefusalHasTextAndANextStep) {
  for (const RoleRule& rule : RoleTable()) {
    if (rule.allowed()) continue;
    const absl::Status status = CheckRequest(rule.state, rule.request);
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("HINT: ")));
    const auto reason = base::GetReason(status);
    ASSERT_TRUE(reason.has_value());
    EXPECT_EQ(reason->metadata.at("state"), RoleStateName(rule.state));
    EXPECT_EQ(reason->metadata.at("request"), RoleRequestName(rule.request));
    EXPECT_TRUE(reason->reason == "ROLE_TRANSITION" || reason->reason == "FENCED");
  }
}

TEST(RoleTableTest, OnlyAnOrderOfTheTermLeadsToPrimary) {
  for (const RoleRule& rule : RoleTable()) {
    if (!rule.allowed() || rule.next != RoleState::kPrimary || rule.state == RoleState::kPrimary) {
      continue;
    }
    EXPECT_TRUE(rule.request == RoleRequest::kPromote ||
                rule.request == RoleRequest::kStartPrimary ||
                rule.request == RoleRequest::kUndoDemote)
        << RoleStateName(rule.state) << " × " << RoleRequestName(rule.request);
  }
}

TEST(RoleTableTest, FencedNodeTakesNoWayToPrimary) {
  for (const RoleRule& rule : RoleTable()) {
    if (rule.state != RoleState::kFenced || !rule.allowed()) continue;
    EXPECT_TRUE(rule.next == RoleState::kFenced || rule.request == RoleRequest::kUnfence);
  }
}

TEST(RoleTableTest, FenceAndStopAreAcceptedInEveryState) {
  for (int state = 0; state < kRoleStates; ++state) {
    EXPECT_TRUE(FindRule(static_cast<RoleState>(state), RoleRequest::kFence).allowed());
    EXPECT_TRUE(FindRule(static_cast<RoleState>(state), RoleRequest::kStop).allowed());
  }
}

TEST(RoleTableTest, BeginTermIsRefusedOnlyWhereTheOrderIsOfTheSameTermAndNeverMakesAPrimary) {
  // A higher term is stored first, and what was an order to be primary is outdated by then.
  TermRecord higher;
  higher.term = 4;
  higher.role_term = 3;
  higher.role_wanted = observe::Role::kPrimary;
  observe::PostgresSection server;
  server.state = observe::PostgresState::kRunning;
  for (const observe::Role observed : {observe::Role::kPrimary, observe::Role::kStandby}) {
    server.role_observed = observed;
    EXPECT_TRUE(FindRule(ClassifyRole(higher, server), RoleRequest::kBeginTerm).allowed());
  }
  for (int index = 0; index < kRoleStates; ++index) {
    const auto state = static_cast<RoleState>(index);
    const RoleRule& rule = FindRule(state, RoleRequest::kBeginTerm);
    const bool ordered = state == RoleState::kPrimary || state == RoleState::kPromoting;
    EXPECT_EQ(rule.allowed(), !ordered) << RoleStateName(state);
    if (rule.allowed()) {
      EXPECT_NE(rule.next, RoleState::kPrimary) << RoleStateName(state);
      EXPECT_NE(rule.next, RoleState::kPromoting) << RoleStateName(state);
    }
  }
}

TEST(RoleTableTest, ObservationAndTermGiveTheState) {
  TermRecord order;
  order.term = order.role_term = 3;
  order.orchestrator_id = "a";
  order.role_wanted = observe::Role::kPrimary;
  TermRecord outdated = order;
  outdated.term = 4;
  TermRecord fenced = order;
  fenced.fence.active = true;
  observe::PostgresSection primary, standby, stopped, none, hung;
  primary.state = standby.state = observe::PostgresState::kRunning;
  primary.role_observed = observe::Role::kPrimary;
  standby.role_observed = observe::Role::kStandby;
  stopped.state = observe::PostgresState::kStopped;
  none.state = observe::PostgresState::kNoDataDirectory;
  hung.state = observe::PostgresState::kUnresponsive;

  EXPECT_EQ(ClassifyRole(order, primary), RoleState::kPrimary);
  EXPECT_EQ(ClassifyRole(outdated, primary), RoleState::kRogue);
  EXPECT_EQ(ClassifyRole(fenced, primary), RoleState::kRogue);
  EXPECT_EQ(ClassifyRole({}, primary), RoleState::kRogue);
  EXPECT_EQ(ClassifyRole(order, standby), RoleState::kPromoting);
  EXPECT_EQ(ClassifyRole(outdated, standby), RoleState::kStandby);
  EXPECT_EQ(ClassifyRole(fenced, standby), RoleState::kFenced);
  EXPECT_EQ(ClassifyRole(order, stopped), RoleState::kStopped);
  EXPECT_EQ(ClassifyRole({}, none), RoleState::kEmpty);
  EXPECT_EQ(ClassifyRole(order, hung), RoleState::kUnsettled);
}

}  // namespace
}  // namespace metal::node
