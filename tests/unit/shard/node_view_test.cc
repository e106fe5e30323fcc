#include "tools/metalctl/shard/node_view.h"

#include "gtest/gtest.h"
#include "tests/unit/shard/healthy_shard.h"
#include "tools/metalctl/shard/agent_calls.h"

namespace metal::shard {
namespace {

namespace v1 = ::metal::agent::v1;

class FaultViewTest : public ::testing::Test {
 protected:
  FaultViewTest() {
    fault_.set_fault_class("write_error");
    fault_.set_subject("nvme0n1");
    fault_.set_severity(v1::SEVERITY_CRITICAL);
    fault_.mutable_disk()->set_confidence(v1::FAULT_CONFIDENCE_CONFIRMED);
    fault_.mutable_disk()->set_reaction(v1::FAULT_REACTION_DEMOTE);
    fault_.mutable_disk()->set_fatal(true);
    fault_.mutable_disk()->add_roles("data");
  }
  NodeView View() {
    v1::NodeStatus status;
    *status.add_faults() = fault_;
    return ViewOf("b", status);
  }
  v1::Fault fault_;
};

TEST_F(FaultViewTest, AConfirmedFatalFaultCondemnsItsNode) {
  EXPECT_TRUE(View().is_condemned());
  EXPECT_TRUE(View().has_fatal_disk());
  EXPECT_TRUE(View().faults[0].severe);
  EXPECT_EQ(View().CondemnedFor(), "write_error nvme0n1");
}

TEST_F(FaultViewTest, ASuspicionDoesNot) {
  fault_.mutable_disk()->set_confidence(v1::FAULT_CONFIDENCE_SUSPECTED);
  EXPECT_FALSE(View().is_condemned());
}

TEST_F(FaultViewTest, NorDoesTheDiskOfARepository) {
  fault_.mutable_disk()->set_roles(0, "repository");
  EXPECT_FALSE(View().is_condemned());
  fault_.mutable_disk()->add_roles("wal");
  EXPECT_TRUE(View().is_condemned());
}

TEST_F(FaultViewTest, NorWhatAnOperatorAcknowledged) {
  fault_.mutable_disk()->mutable_acknowledgement()->set_caller("unix");
  EXPECT_FALSE(View().is_condemned());
  EXPECT_FALSE(View().faults[0].severe);
}

TEST_F(FaultViewTest, WhatOnlyAsksForAPlannedMoveIsNotFatal) {
  fault_.mutable_disk()->set_fatal(false);
  fault_.mutable_disk()->set_reaction(v1::FAULT_REACTION_DRAIN);
  EXPECT_TRUE(View().is_condemned());
  EXPECT_FALSE(View().has_fatal_disk());
  fault_.mutable_disk()->set_reaction(v1::FAULT_REACTION_OBSERVE);
  EXPECT_FALSE(View().is_condemned());
}

TEST(PeersTest, AMemberIsToldOfTheDisksAndTheFencesOfTheOthers) {
  std::vector<NodeView> views = HealthyShard();
  EXPECT_TRUE(PeersOf("a", views).fenced_node_ids().empty());
  views[0].disk_excess = views[1].disk_excess = {{.role = "data", .median = 0.5, .p99 = 1}};
  views[2].fenced = true;
  views[2].fence_reason = "maintenance";
  EXPECT_TRUE(PeersOf("a", views).fenced_node_ids().empty()) << "not because of a disk";
  views[2].fence_reason = "disk: gone nvme0n1";
  const auto told = PeersOf("a", views);
  ASSERT_EQ(told.disks_size(), 1);
  EXPECT_EQ(told.disks(0).node_id(), "b");
  ASSERT_EQ(told.fenced_node_ids_size(), 1);
  EXPECT_EQ(told.fenced_node_ids(0), "c");
  EXPECT_TRUE(PeersOf("c", views).fenced_node_ids().empty()) << "it knows";
  views[2].answered = false;
  EXPECT_TRUE(PeersOf("a", views).fenced_node_ids().empty()) << "nobody sees it";
}

}  // namespace
}  // namespace metal::shard
