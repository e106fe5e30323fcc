#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

v1::NodeStatus Node() {
  v1::NodeStatus status;
  status.mutable_capture_time()->set_seconds(1'000'000);
  status.mutable_node()->set_node_id("db1");
  status.mutable_node()->mutable_agent_start_time()->set_seconds(1'000'000 - 7380);
  status.mutable_postgres()->set_state(v1::POSTGRES_STATE_RUNNING);
  return status;
}

TEST(StatusTextTest, FaultsComeFirst) {
  v1::NodeStatus status = Node();
  auto* fault = status.add_faults();
  fault->set_fault_class("stalled");
  fault->set_subject("nvme0n1");
  fault->set_message("probes do not end");
  fault->mutable_since_time()->set_seconds(1'000'000 - 250);
  EXPECT_THAT(StatusText(status, {}),
              StartsWith("FAULT stalled nvme0n1, since 4m10s: probes do not end\n"));
}

TEST(StatusTextTest, AgesAreByTheNodesClock) {
  EXPECT_THAT(StatusText(Node(), {}), HasSubstr("up 2h03m"));
}

TEST(StatusTextTest, ColoursOnlyWhenAskedFor) {
  EXPECT_THAT(StatusText(Node(), {}), Not(HasSubstr("\033")));
  EXPECT_THAT(StatusText(Node(), {.colors = true}), HasSubstr("\033[32mrunning\033[0m"));
}

TEST(StatusTextTest, AFenceAndASuspectBackupStandOut) {
  v1::NodeStatus status = Node();
  status.mutable_node()->set_fenced(true);
  status.mutable_node()->set_fence_reason("moved");
  auto* backup = status.mutable_backups()->add_latest();
  backup->set_name("backups/b1");
  backup->set_state(v1::BACKUP_STATE_SUSPECT);
  const std::string text = StatusText(status, {.colors = true});
  EXPECT_THAT(text, HasSubstr("\033[31min term 0: moved\033[0m"));
  EXPECT_THAT(text, HasSubstr("\033[31msuspect\033[0m"));
}

TEST(StatusTextTest, TheGateIsShownWhereThereIsOne) {
  v1::NodeStatus status = Node();
  status.mutable_gate()->set_state(v1::GATE_STATE_OFF);
  EXPECT_THAT(StatusText(status, {}), Not(HasSubstr("gate")));
  auto* gate = status.mutable_gate();
  gate->mutable_observe_age()->set_seconds(0);
  gate->set_state(v1::GATE_STATE_OPEN);
  gate->set_host("::1");
  gate->set_port(5432);
  gate->set_clients(12);
  EXPECT_THAT(StatusText(status, {}), HasSubstr("open to [::1]:5432, 12 clients (0 waiting)"));
  gate->set_state(v1::GATE_STATE_HELD);
  gate->set_orchestrator_id("o");
  gate->set_term(7);
  gate->set_transactions(2);
  gate->mutable_held_until_time()->set_seconds(1'000'000 + 20);
  EXPECT_THAT(StatusText(status, {}),
              HasSubstr("held by o in term 7, for 20 s more, then to [::1]:5432, 12 clients (0 "
                        "waiting), 2 transactions still run"));
  gate->set_state(v1::GATE_STATE_DOWN);
  gate->set_reason("it is stopped");
  gate->mutable_read_only()->set_state(v1::READ_ONLY_DOOR_STATE_CLOSED);
  gate->mutable_read_only()->set_reason("no standby");
  const std::string text = StatusText(status, {.colors = true});
  EXPECT_THAT(text, HasSubstr("\033[31mdown\033[0m: it is stopped; held by o"));
  EXPECT_THAT(text, HasSubstr("\033[33mclosed\033[0m: no standby"));
}

TEST(StatusTextTest, ABackupShowsRatioRateAndEngineInEightyColumns) {
  v1::NodeStatus status = Node();
  auto* backup = status.mutable_backups()->add_latest();
  backup->set_name("backups/20261122T021500Z-F2");
  backup->set_state(v1::BACKUP_STATE_COMPLETE);
  backup->mutable_stop_time()->set_seconds(1'000'000 - 7380);
  backup->set_size_bytes(3650000000);
  backup->set_stored_bytes(838000000);
  backup->set_bytes_per_second(8.53e8);
  backup->set_codec("zstd");
  backup->set_io_engine("io_uring");
  const std::string text = StatusText(status, {.width = 80});
  for (const char* shown :
       {"RATIO", "4.36x", "RATE", "853", "ENGINE", "io_uring", "2h03m", "3.4"}) {
    EXPECT_THAT(text, HasSubstr(shown));
  }
  for (size_t at = text.find("BACKUP"), end = 0; at < text.size(); at = end + 1) {
    end = text.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    EXPECT_LE(DisplayWidth(text.substr(at, end - at)), 80u) << text;
  }
  EXPECT_THAT(StatusText(status, {.width = 120}), HasSubstr("CODEC"));
}

TEST(StatusTextTest, ADiskWithoutProbesIsShown) {
  v1::NodeStatus status = Node();
  auto* disk = status.add_disks();
  disk->set_device("nvme7n1");
  disk->add_roles("data");
  EXPECT_THAT(StatusText(status, {}), HasSubstr("nvme7n1"));
}

TEST(TextTableTest, OptionalColumnsGoWhenTheTerminalIsNarrow) {
  TextTable table({"NAME", "?MODEL", "?>SIZE", "STATE"});
  table.AddRow({"disk", "model-of-disk", "12", "ok"});
  EXPECT_EQ(table.ToString(0), "NAME  MODEL          SIZE  STATE\ndisk  model-of-disk    12  ok\n");
  EXPECT_EQ(table.ToString(26), "NAME  MODEL          STATE\ndisk  model-of-disk  ok\n");
  EXPECT_EQ(table.ToString(10), "NAME  STATE\ndisk  ok\n");
}

TEST(TextTableTest, ColoursTakeNoWidth) {
  EXPECT_EQ(DisplayWidth("\033[31mbad\033[0m"), 3u);
  EXPECT_EQ(DisplayWidth("85 µs"), 5u);
}

}  // namespace
}  // namespace metal::ctl
