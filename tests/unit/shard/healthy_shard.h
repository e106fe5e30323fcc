// A shard of three nodes, as shard.toml and as the statuses of its agents: a is the primary of term
// 4 on timeline 3, b and c stream from it.
#pragma once

#include "tools/metalctl/shard/findings.h"

namespace metal::shard {

inline ShardConfig ThreeNodes() {
  ShardConfig config;
  config.name = "orders";
  config.orchestrator = "metalctl";
  config.max_lag_bytes = 1 << 20;
  config.clone_rate = 5 << 20;
  for (const char* id : {"a", "b", "c"}) {
    config.nodes.push_back({.id = id,
                            .agent = std::string(id) + ".example:7420",
                            .server_name = "",
                            .postgres = {std::string(id) + ".example", 5432},
                            .gate = {},
                            .transfer = {std::string(id) + ".example", 7421}});
  }
  return config;
}

// Of a disk that refuses writes.
inline NodeFault ConfirmedFault(FaultWish wanted, bool fatal = true) {
  return {.fault_class = "write_error",
          .subject = "nvme0n1",
          .message = "",
          .severe = true,
          .fatal_disk = fatal,
          .wanted = wanted};
}

inline NodeView HealthyNode(const std::string& id) {
  NodeView view;
  view.id = view.node_id = id;
  view.answered = true;
  view.cluster_id = "orders";
  view.term = 4;
  view.orchestrator = "metalctl";
  view.server = ServerState::kRunning;
  view.role = view.wanted = NodeRole::kStandby;
  view.version = 150018;
  view.system_id = 77;
  view.timeline = 3;
  view.received = view.replayed = {0x5000};
  view.receiver_state = "streaming";
  view.sender_host = "a.example";
  view.sender_port = 5432;
  view.slot = SlotName(id);
  view.lag_bytes = 0;
  view.lag = absl::ZeroDuration();
  view.gate = "open";
  view.gate_target = {"a.example", 5432};
  view.disk = "healthy";
  return view;
}

inline std::vector<NodeView> HealthyShard() {
  std::vector<NodeView> views = {HealthyNode("a"), HealthyNode("b"), HealthyNode("c")};
  NodeView& primary = views[0];
  primary.role = primary.wanted = NodeRole::kPrimary;
  primary.receiver_state = primary.sender_host = primary.slot = "";
  primary.sender_port = 0;
  primary.lag_bytes.reset();
  primary.lag.reset();
  primary.followers_seen = true;
  for (const char* id : {"b", "c"}) {
    primary.followers.push_back(
        {.name = id, .state = "streaming", .sync_state = "quorum", .flushed = {0x5000}});
  }
  return views;
}

}  // namespace metal::shard
