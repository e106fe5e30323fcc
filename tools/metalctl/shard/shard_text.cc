#include "tools/metalctl/shard/shard_text.h"

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "tools/metalctl/format.h"
#include "tools/metalctl/text_table.h"

namespace metal::shard {
namespace {

using Json = nlohmann::ordered_json;

ctl::Tone ToneOf(Weight weight) {
  return weight == Weight::kError ? ctl::Tone::kBad : ctl::Tone::kCaution;
}

// "primary", "standby", or why it is neither.
std::string RoleWord(const NodeView& view) {
  if (!view.answered) return "no answer";
  std::string word(ServerStateName(view.server));
  if (view.is_primary()) word = view.is_ordered_primary() ? "primary" : "rogue primary";
  if (view.is_standby()) word = view.wanted == NodeRole::kPrimary ? "promoting" : "standby";
  if (view.running() && view.role == NodeRole::kUnknown) word = "not seen yet";
  return view.fenced ? word + ", fenced" : word;
}

ctl::Tone RoleTone(const NodeView& view) {
  if (!view.running() || view.fenced) return ctl::Tone::kBad;
  if (view.is_primary()) return view.is_ordered_primary() ? ctl::Tone::kGood : ctl::Tone::kBad;
  return ctl::Tone::kPlain;
}

const Follower* FollowerOf(const std::vector<NodeView>& views, const std::string& id) {
  const auto primary = FindPrimary(views);
  if (!primary) return nullptr;
  for (const Follower& each : views[*primary].followers) {
    if (each.name == id) return &each;
  }
  return nullptr;
}

std::string Seconds(const std::optional<absl::Duration>& duration) {
  return duration ? ctl::FormatSeconds(absl::ToDoubleSeconds(*duration)) : "";
}

std::string NodeTable(const ShardConfig& config, const std::vector<NodeView>& views,
                      const ctl::TextOptions& options) {
  ctl::TextTable table({"NODE", "ROLE", ">TERM", ">TLI", ">LSN", ">BEHIND", ">LAG", "SYNC", "?DOOR",
                        "?DISK", "?>BACKUP", ">FAULTS", "?RUNNING"});
  for (size_t i = 0; i < views.size(); ++i) {
    const NodeView& view = views[i];
    const std::string role = ctl::Paint(RoleWord(view), RoleTone(view), options.colors);
    if (!view.answered) {
      table.AddRow({config.nodes[i].id, role, "", "", "", "", "", "", "", "", "", "", ""});
      continue;
    }
    const Follower* follower = FollowerOf(views, view.id);
    table.AddRow({config.nodes[i].id, role, std::to_string(view.term),
                  view.timeline == 0 ? "" : std::to_string(view.timeline),
                  ctl::FormatLsn(view.received.value),
                  view.lag_bytes ? ctl::FormatBytes(*view.lag_bytes) : "", Seconds(view.lag),
                  follower == nullptr || !view.is_standby() ? "" : follower->sync_state, view.gate,
                  ctl::Paint(view.disk, view.disk_is_sick() ? ctl::Tone::kBad : ctl::Tone::kPlain,
                             options.colors),
                  Seconds(view.backup_age),
                  view.faults.empty() ? "" : std::to_string(view.faults.size()), view.operation});
  }
  return table.ToString(options.width);
}

Json NodeJson(const NodeView& view, const std::vector<NodeView>& views) {
  Json node = {{"id", view.id}, {"answered", view.answered}};
  if (!view.answered) {
    node["error"] = view.no_answer;
    return node;
  }
  const Follower* follower = FollowerOf(views, view.id);
  node["role"] = RoleWord(view);
  node["primary"] = view.is_ordered_primary();
  node["server"] = ServerStateName(view.server);
  node["term"] = std::to_string(view.term);
  node["orchestrator"] = view.orchestrator;
  node["fenced"] = view.fenced;
  node["timeline"] = view.timeline;
  node["lsn"] = view.received.ToString();
  node["replayed_lsn"] = view.replayed.ToString();
  node["lag_bytes"] = view.lag_bytes ? Json(std::to_string(*view.lag_bytes)) : Json(nullptr);
  node["lag_seconds"] = view.lag ? Json(absl::ToDoubleSeconds(*view.lag)) : Json(nullptr);
  node["sync_state"] = follower == nullptr ? "" : follower->sync_state;
  node["receiver"] = view.receiver_state;
  node["source"] =
      view.sender_host.empty() ? "" : HostPort{view.sender_host, view.sender_port}.ToString();
  node["slot"] = view.slot;
  node["gate"] = view.gate;
  node["gate_target"] = view.gate_target.is_set() ? view.gate_target.ToString() : "";
  node["disk"] = view.disk;
  node["backup_age_seconds"] =
      view.backup_age ? Json(absl::ToDoubleSeconds(*view.backup_age)) : Json(nullptr);
  node["faults"] = Json::array();
  for (const NodeFault& fault : view.faults) {
    node["faults"].push_back(
        {{"class", fault.fault_class}, {"subject", fault.subject}, {"message", fault.message}});
  }
  node["operation"] = view.operation;
  node["system_identifier"] = std::to_string(view.system_id);
  node["version"] = view.version;
  return node;
}

}  // namespace

std::string FindingsText(const std::vector<Finding>& findings, const ctl::TextOptions& options) {
  if (findings.empty()) return "no inconsistencies\n";
  std::string text;
  for (const Finding& each : findings) {
    text += fmt::format("{} {}: {}\n",
                        ctl::Paint(each.kind->name, ToneOf(each.kind->weight), options.colors),
                        each.node.empty() ? "shard" : each.node, each.message);
    text += fmt::format("  HINT: {}\n", each.kind->hint);
  }
  return text;
}

std::string StatusText(const ShardConfig& config, const std::vector<NodeView>& views,
                       const std::vector<Finding>& findings, const ctl::TextOptions& options) {
  const auto primary = FindPrimary(views);
  const uint64_t term = HighestTerm(views);
  return fmt::format("shard {}: {}, {}, commits wait for {}\n\n{}\n{}", config.name,
                     primary ? "primary " + views[*primary].id : "no primary",
                     term == 0 ? "no term yet" : fmt::format("term {}", term),
                     config.policy.ToString(), NodeTable(config, views, options),
                     FindingsText(findings, options));
}

std::string StatusJson(const ShardConfig& config, const std::vector<NodeView>& views,
                       const std::vector<Finding>& findings, bool pretty) {
  const auto primary = FindPrimary(views);
  Json json = {{"shard", config.name},
               {"term", std::to_string(HighestTerm(views))},
               {"primary", primary ? Json(views[*primary].id) : Json(nullptr)},
               {"policy", config.policy.ToString()},
               {"nodes", Json::array()},
               {"findings", Json::array()}};
  for (const NodeView& view : views) json["nodes"].push_back(NodeJson(view, views));
  for (const Finding& each : findings) {
    json["findings"].push_back(
        {{"name", each.kind->name},
         {"weight", each.kind->weight == Weight::kError ? "error" : "warning"},
         {"node", each.node},
         {"message", each.message},
         {"hint", each.kind->hint}});
  }
  return json.dump(pretty ? 2 : -1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace metal::shard
