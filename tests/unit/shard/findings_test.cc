#include "tools/metalctl/shard/findings.h"

#include <functional>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/shard/healthy_shard.h"
#include "tools/metalctl/shard/shard_text.h"

namespace metal::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Views = std::vector<NodeView>;

std::vector<std::string> Names(const Views& views) {
  std::vector<std::string> names;
  for (const Finding& each : Analyse(ThreeNodes(), views)) names.emplace_back(each.kind->name);
  return names;
}

// What is done to a healthy shard, and exactly which findings come of it.
struct Case {
  std::string what;
  std::function<void(Views&)> harm;
  std::vector<std::string> names;
};

void MakePrimary(NodeView& view) { view.role = view.wanted = NodeRole::kPrimary; }

// Of who may write, and of what the nodes are.
std::vector<Case> CasesOfRoles() {
  return {
      {"nothing", [](Views&) {}, {}},
      {"another primary of the same term",
       [](Views& v) { MakePrimary(v[1]); },
       {"two_primaries", "no_primary"}},
      {"the old primary came back",
       [](Views& v) {
         MakePrimary(v[2]);
         v[2].term = 3;
       },
       {"two_primaries", "old_primary", "different_terms"}},
      {"a foreign start read-write",
       [](Views& v) { v[1].role = NodeRole::kPrimary; },
       {"two_primaries", "rogue_primary"}},
      {"no primary",
       [](Views& v) { v[0].role = v[0].wanted = NodeRole::kStandby; },
       {"no_primary"}},
      {"a promotion was cut off",
       [](Views& v) { v[0].role = NodeRole::kStandby; },
       {"no_primary", "promotion_unfinished"}},
      {"an agent is dead",
       [](Views& v) { v[2] = UnreachableView("c", "no answer within 2s"); },
       {"agent_unreachable"}},
      {"the primary's agent is dead",
       [](Views& v) { v[0] = UnreachableView("a", "refused"); },
       {"no_primary", "agent_unreachable"}},
      {"addresses are exchanged", [](Views& v) { v[1].node_id = "c"; }, {"wrong_node"}},
      {"an agent of another shard", [](Views& v) { v[1].cluster_id = "people"; }, {"wrong_shard"}},
      {"another database", [](Views& v) { v[1].system_id = 78; }, {"different_systems"}},
      {"another version", [](Views& v) { v[1].version = 160004; }, {"different_versions"}},
      {"a fence", [](Views& v) { v[1].fenced = true; }, {"fenced"}},
      {"the primary is fenced and still writes",
       [](Views& v) { v[0].fenced = true; },
       {"no_primary", "rogue_primary", "fenced"}},
      {"a standby missed a term", [](Views& v) { v[1].term = 3; }, {"different_terms"}},
      {"another orchestrator",
       [](Views& v) {
         for (NodeView& view : v) view.orchestrator = "robot";
       },
       {"foreign_term", "foreign_term", "foreign_term"}},
      {"an empty node",
       [](Views& v) {
         v[2] = HealthyNode("c");
         v[2].server = ServerState::kEmpty;
         v[2].term = 0;
         v[2].system_id = 0;
       },
       {"no_data"}},
      {"a stopped server", [](Views& v) { v[2].server = ServerState::kStopped; }, {"server_down"}},
  };
}

// Of replication and health.
std::vector<Case> CasesOfReplication() {
  return {
      {"facts are old", [](Views& v) { v[2].seen = absl::Minutes(1); }, {"facts_old"}},
      {"no receiver",
       [](Views& v) { v[2].receiver_state = v[2].sender_host = ""; },
       {"not_streaming"}},
      {"it follows a standby", [](Views& v) { v[2].sender_host = "b.example"; }, {"wrong_source"}},
      {"it streams without a slot", [](Views& v) { v[2].slot = ""; }, {"no_slot"}},
      {"another timeline", [](Views& v) { v[2].timeline = 2; }, {"other_timeline"}},
      {"it has more than the primary",
       [](Views& v) {
         v[2].receiver_state = "";
         v[2].received = {0x6000};
       },
       {"not_streaming", "diverged"}},
      {"replay is paused", [](Views& v) { v[2].replay_paused = true; }, {"replay_paused"}},
      {"a standby lags", [](Views& v) { v[2].lag_bytes = 2 << 20; }, {"lagging"}},
      {"nobody streams",
       [](Views& v) { v[0].followers.clear(); },
       {"not_seen", "not_seen", "too_few_synchronous"}},
      {"one of two is enough", [](Views& v) { v[0].followers.pop_back(); }, {"not_seen"}},
      {"the policy is not set",
       [](Views& v) {
         for (Follower& each : v[0].followers) each.sync_state = "async";
       },
       {"too_few_synchronous", "policy_not_in_force", "policy_not_in_force"}},
      {"a foreign receiver counts",
       [](Views& v) { v[0].followers[1].name = "backup"; },
       {"not_seen", "foreign_synchronous"}},
      {"followers were not seen yet",
       [](Views& v) {
         v[0].followers.clear();
         v[0].followers_seen = false;
       },
       {}},
      {"a door is held", [](Views& v) { v[1].gate = "held"; }, {"traffic_held"}},
      {"a door leads elsewhere", [](Views& v) { v[1].gate_target.port = 1; }, {"gate_astray"}},
      {"a door is down", [](Views& v) { v[1].gate = "down"; }, {"gate_down"}},
      {"a node without a door", [](Views& v) { v[1].gate = ""; }, {}},
      {"a disk stalls", [](Views& v) { v[1].disk = "stalled"; }, {"disk_sick"}},
      {"the archive is full",
       [](Views& v) { v[0].archive_error = "no space"; },
       {"archive_failing"}},
      {"a fault",
       [](Views& v) {
         v[1].faults.push_back({"corruption", "base/1", "bad", true});
       },
       {"node_fault"}},
      {"a standby is condemned and left out",
       [](Views& v) {
         v[1].faults.push_back(ConfirmedFault(FaultWish::kFailover));
         v[1].received = {0x1000};
         v[0].synchronous_standbys = "ANY 1 (\"c\")";
         v[0].followers[0].sync_state = "async";
         v[0].received = {uint64_t{4} << 20};
       },
       {"rebuild_wanted", "left_out", "slot_holds_wal", "node_fault"}},
      {"a small fault",
       [](Views& v) {
         v[1].faults.push_back({"slow", "nvme0", "", false});
       },
       {}},
  };
}

std::vector<Case> Cases() {
  std::vector<Case> cases = CasesOfRoles();
  for (Case& each : CasesOfReplication()) cases.push_back(std::move(each));
  return cases;
}

TEST(FindingsTest, ADoorThatTheFileNamesIsMissed) {
  ShardConfig config = ThreeNodes();
  for (ShardNode& node : config.nodes) node.gate = {node.id + ".example", 6432};
  std::vector<NodeView> views = HealthyShard();
  EXPECT_TRUE(Analyse(config, views).empty());
  views[1].gate = "";
  const auto findings = Analyse(config, views);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].kind->name, "gate_off");
  EXPECT_EQ(findings[0].node, "b");
  EXPECT_THAT(findings[0].message, HasSubstr("b.example:6432"));
}

TEST(FindingsTest, EachInconsistencyIsFoundAndNothingElse) {
  for (const Case& each : Cases()) {
    Views views = HealthyShard();
    each.harm(views);
    EXPECT_EQ(Names(views), each.names) << each.what;
  }
}

TEST(FindingsTest, EveryNameIsReachable) {
  std::set<std::string> reached = {"gate_off"};  // ADoorThatTheFileNamesIsMissed
  for (const Case& each : Cases()) reached.insert(each.names.begin(), each.names.end());
  for (const FindingKind& kind : FindingKinds()) {
    EXPECT_TRUE(reached.contains(std::string(kind.name))) << kind.name;
  }
}

TEST(FindingsTest, AShardThatWasNeverMadeHasNoPrimaryToMiss) {
  Views views;
  for (const char* id : {"a", "b", "c"}) {
    NodeView view;
    view.id = view.node_id = id;
    view.answered = true;
    view.cluster_id = "orders";
    view.server = ServerState::kEmpty;
    views.push_back(view);
  }
  EXPECT_THAT(Names(views), ElementsAre("no_data", "no_data", "no_data"));
}

TEST(FindingsTest, ErrorsComeBeforeWarnings) {
  Views views = HealthyShard();
  views[0].archive_error = "no space";
  views[2].receiver_state = "";
  EXPECT_THAT(Names(views), ElementsAre("not_streaming", "archive_failing"));
}

TEST(FindingsTest, ThePrimaryIsTheOneOfTheHighestTermAlone) {
  Views views = HealthyShard();
  EXPECT_EQ(FindPrimary(views), 0u);
  views[1].term = 5;  // a later term has begun: its primary is not known here
  EXPECT_EQ(FindPrimary(views), std::nullopt);
}

TEST(ShardTextTest, TheTableHasARowForEachNodeAndTheFindingsBelow) {
  Views views = HealthyShard();
  views[2] = UnreachableView("c", "no answer within 2s");
  const auto findings = Analyse(ThreeNodes(), views);
  const std::string text = StatusText(ThreeNodes(), views, findings, {});
  EXPECT_THAT(text, HasSubstr("shard orders: primary a, term 4, commits wait for ANY 1"));
  EXPECT_THAT(text, HasSubstr("c     no answer"));
  EXPECT_THAT(text, HasSubstr("agent_unreachable c: no answer within 2s\n  HINT: is metal-agent"));
  EXPECT_THAT(StatusText(ThreeNodes(), HealthyShard(), {}, {}), HasSubstr("no inconsistencies"));
}

TEST(ShardTextTest, JsonHasWhatTheTableHas) {
  Views views = HealthyShard();
  views[1].slot = "";
  const std::string json = StatusJson(ThreeNodes(), views, Analyse(ThreeNodes(), views), false);
  EXPECT_THAT(json, HasSubstr(R"("shard":"orders","term":"4","primary":"a","policy":"ANY 1")"));
  EXPECT_THAT(json, HasSubstr(R"("name":"no_slot","weight":"error","node":"b")"));
  EXPECT_THAT(json, HasSubstr(R"("sync_state":"quorum")"));
}

}  // namespace
}  // namespace metal::shard
