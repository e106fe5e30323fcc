#include "tools/metalctl/shard/findings.h"

#include <algorithm>
#include <map>
#include <set>

#include "agent/base/check.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/shard/synchronous_set.h"

namespace metal::shard {
namespace {

constexpr auto kWarning = Weight::kWarning;
constexpr auto kError = Weight::kError;
constexpr absl::Duration kOldFacts = absl::Seconds(15);
constexpr std::string_view kRecover = "metalctl shard recover";

constexpr FindingKind kKinds[] = {
    {"two_primaries", kError, "more than one node accepts writes",
     "metalctl fence --term TERM --reason … on the one that must not, then metalctl shard recover"},
    {"no_primary", kError, "no node accepts writes by order of the highest term",
     "metalctl shard recover finishes what was begun; metalctl shard failover when the primary is "
     "lost"},
    {"rogue_primary", kError, "a node accepts writes although no term orders it to",
     "metalctl shard recover makes it a standby"},
    {"old_primary", kError, "a node accepts writes by order of a term that is over",
     "metalctl shard recover makes it a standby"},
    {"promotion_unfinished", kError, "a promotion was ordered and has not ended", kRecover},
    {"agent_unreachable", kError, "the agent of a node did not answer",
     "is metal-agent running there, and is the address in the shard's file right?"},
    {"wrong_node", kError, "the agent has another node_id than the shard's file says",
     "correct id or agent in the shard's file"},
    {"wrong_shard", kError, "the agent's cluster_id is not the shard's name",
     "correct name in the shard's file, or agent.cluster_id"},
    {"different_systems", kError, "the data directories are not copies of one database",
     "metalctl pg stop there, move its data directory away, and metalctl shard recover makes a "
     "copy"},
    {"different_versions", kError, "the major versions of PostgreSQL differ",
     "install one version everywhere: a standby replays WAL of its own version alone"},
    {"fenced", kError, "a node is fenced",
     "metalctl unfence --term TERM, when its reason is gone; metalctl shard replace NODE lifts one "
     "because of a disk"},
    {"different_terms", kError, "the nodes have not all stored the same term", kRecover},
    {"foreign_term", kWarning, "the term is held by another orchestrator",
     "shard.orchestrator in the shard's file must be that of whoever operates the shard"},
    {"no_data", kError, "a node has no data directory",
     "metalctl shard init makes a new shard; metalctl shard replace NODE clones it"},
    {"server_down", kError, "PostgreSQL is not running",
     "metalctl events on the node says why; "
     "metalctl shard recover starts it"},
    {"facts_old", kWarning, "the agent answers, what it knows of PostgreSQL is old",
     "metalctl status on the node: does PostgreSQL answer?"},
    {"not_streaming", kError, "a standby receives no WAL", kRecover},
    {"not_seen", kError, "a standby says that it streams, and the primary does not see it",
     "the connection between them is lost, which a standby notices after wal_receiver_timeout"},
    {"wrong_source", kError, "a standby follows another node than the primary", kRecover},
    {"no_slot", kError, "a standby streams without its slot: WAL that it needs may be removed",
     kRecover},
    {"other_timeline", kError, "a standby is on another timeline than the primary", kRecover},
    {"diverged", kError, "a standby has WAL that the primary never had",
     "metalctl shard recover rewinds it, or clones it anew"},
    {"replay_paused", kWarning, "a standby receives WAL and does not replay it",
     "resume the replay: a promotion would have to wait for it"},
    {"lagging", kWarning, "a standby is farther behind than max_lag",
     "metalctl disk health on the node; a planned reparent does not go to it"},
    {"too_few_synchronous", kError, "fewer standbys acknowledge commits than the policy wants",
     "commits wait, or are not protected: metalctl shard recover"},
    {"policy_not_in_force", kError, "a standby streams, and its acknowledgement does not count",
     kRecover},
    {"foreign_synchronous", kError,
     "commits are acknowledged by a server that is no node of the shard",
     "give that receiver another application_name"},
    {"traffic_held", kError, "the door of a node holds clients back",
     "it opens by itself at its deadline; metalctl shard recover opens it now"},
    {"gate_astray", kError, "the door of a node leads to another server than the primary",
     kRecover},
    {"gate_off", kError, "a node has no door, and the shard's file names one",
     "gate.enabled in the configuration of its agent, or leave gate out of the file"},
    {"gate_down", kError, "the door of a node does not work",
     "metalctl status and metalctl events on the node"},
    {"disk_sick", kError, "a disk stalls or fails",
     "metalctl disk health on the node; metalctl shard reparent when it is the primary's"},
    {"rebuild_wanted", kError, "a standby's disk has a confirmed fault: it is no copy to rely on",
     "metalctl shard replace NODE once its drive is changed; metalctl disk acknowledge on the node "
     "when the fault is over"},
    {"left_out", kWarning, "a standby's acknowledgement does not count, because of its disk",
     "commits wait for the others alone; metalctl shard watch --auto puts it back when it is well, "
     "so does metalctl shard recover"},
    {"slot_holds_wal", kWarning, "the slot of a standby with a sick disk keeps WAL on the primary",
     "metalctl disk list on the primary shows what is free; metalctl shard replace, or metalctl "
     "slots without it, ends that"},
    {"archive_failing", kWarning, "WAL cannot be archived", "metalctl backup archive on the node"},
    {"node_fault", kWarning, "the node reports a fault", "metalctl status on the node"},
};

const FindingKind& Kind(std::string_view name) {
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [&](const FindingKind& each) { return each.name == name; });
  METAL_CHECK(found != std::end(kKinds));
  return *found;
}

class Analysis {
 public:
  Analysis(const ShardConfig& config, const std::vector<NodeView>& views)
      : config_(config), views_(views), term_(HighestTerm(views)), primary_(FindPrimary(views)) {}

  std::vector<Finding> Run() {
    CheckPrimaries();
    CheckSystems();
    for (const NodeView& view : views_) {
      if (!view.answered) {
        Add("agent_unreachable", view.id, view.no_answer);
        continue;
      }
      CheckIdentity(view);
      CheckServer(view);
      if (view.is_standby() && primary_) CheckStandby(view, views_[*primary_]);
      CheckDoor(view);
      CheckHealth(view);
      if (primary_ && view.id != views_[*primary_].id) CheckCondemned(view, views_[*primary_]);
    }
    if (primary_) CheckPolicy(views_[*primary_]);
    std::stable_sort(found_.begin(), found_.end(), [](const Finding& a, const Finding& b) {
      if (a.kind->weight != b.kind->weight) return a.kind->weight == kError;
      return a.kind < b.kind;  // of one array
    });
    return std::move(found_);
  }

 private:
  void Add(std::string_view kind, std::string node, std::string message) {
    found_.push_back({&Kind(kind), std::move(node), std::move(message)});
  }

  void CheckPrimaries() {
    std::vector<std::string> writable;
    for (const NodeView& view : views_) {
      if (!view.is_primary()) continue;
      writable.push_back(view.id);
      if (!view.is_ordered_primary()) {
        Add("rogue_primary", view.id,
            fmt::format("accepts writes, and term {} does not make it the "
                        "primary",
                        view.term));
      } else if (view.term < term_) {
        Add("old_primary", view.id,
            fmt::format("accepts writes of term {}, the highest is {}", view.term, term_));
      }
    }
    if (writable.size() > 1) {
      Add("two_primaries", "", fmt::format("{} accept writes", fmt::join(writable, " and ")));
    }
    const bool has_data = std::any_of(views_.begin(), views_.end(), [](const NodeView& view) {
      return view.answered && view.server != ServerState::kEmpty;
    });
    if (!primary_ && has_data) {
      Add("no_primary", "", fmt::format("no node that answers is the primary of term {}", term_));
    }
  }

  // Against the primary, or against the first node that has data.
  void CheckSystems() {
    const NodeView* reference = primary_ ? &views_[*primary_] : nullptr;
    for (const NodeView& view : views_) {
      if (!view.answered || view.system_id == 0) continue;
      if (reference == nullptr) reference = &view;
      if (view.system_id != reference->system_id) {
        Add("different_systems", view.id,
            fmt::format("its system identifier is {}, that of {} is {}", view.system_id,
                        reference->id, reference->system_id));
      }
      if (view.version != 0 && reference->version != 0 &&
          view.version / 10000 != reference->version / 10000) {
        Add("different_versions", view.id,
            fmt::format("runs PostgreSQL {}, {} runs {}", view.version / 10000, reference->id,
                        reference->version / 10000));
      }
    }
  }

  void CheckIdentity(const NodeView& view) {
    if (view.node_id != view.id) {
      Add("wrong_node", view.id, fmt::format("its agent calls itself {}", view.node_id));
    }
    if (view.cluster_id != config_.name) {
      Add("wrong_shard", view.id,
          fmt::format("its agent belongs to {}, not to {}", view.cluster_id, config_.name));
    }
    if (view.fenced) Add("fenced", view.id, view.fence_reason);
    if (view.term < term_ && view.server != ServerState::kEmpty) {
      Add("different_terms", view.id,
          fmt::format("has stored term {}, the highest is {}", view.term, term_));
    }
    if (view.term == term_ && term_ > 0 && !config_.IsOurs(view.orchestrator)) {
      Add("foreign_term", view.id,
          fmt::format("term {} is held by {}, not by {}", term_, view.orchestrator,
                      config_.orchestrator));
    }
    if (view.wanted == NodeRole::kPrimary && view.term == term_ && !view.is_primary()) {
      Add("promotion_unfinished", view.id,
          fmt::format("term {} makes it the primary; it is {}", view.term,
                      view.is_standby() ? "a standby" : ServerStateName(view.server)));
    }
  }

  void CheckServer(const NodeView& view) {
    if (view.server == ServerState::kEmpty) {
      Add("no_data", view.id, "there is no data directory");
    } else if (view.server != ServerState::kRunning) {
      const std::string_view state = ServerStateName(view.server);
      Add("server_down", view.id,
          view.server_reason.empty() ? std::string(state)
                                     : fmt::format("{}: {}", state, view.server_reason));
    } else if (view.seen > kOldFacts) {
      Add("facts_old", view.id,
          fmt::format("seen {} ago", ctl::FormatSeconds(absl::ToDoubleSeconds(view.seen))));
    }
  }

  void CheckStandby(const NodeView& view, const NodeView& primary) {
    const HostPort& source = config_.nodes[*primary_].postgres;
    const bool streams = view.receiver_state == "streaming";
    if (!streams) {
      Add("not_streaming", view.id,
          view.receiver_state.empty() ? "it has no WAL receiver"
                                      : "its WAL receiver is " + view.receiver_state);
    }
    if (streams && !SeenStreaming(primary, view.id)) {
      Add("not_seen", view.id, fmt::format("is none of those that {} sends WAL to", primary.id));
    }
    const HostPort sender{view.sender_host, view.sender_port};
    const bool follows = !view.receiver_state.empty() && !view.sender_host.empty();
    if (follows && sender != source) {
      Add("wrong_source", view.id,
          fmt::format("follows {}, the primary is {} at {}", sender.ToString(), primary.id,
                      source.ToString()));
    }
    if (streams && view.slot != SlotName(view.id)) {
      Add("no_slot", view.id,
          fmt::format("streams {}, not through slot {}",
                      view.slot.empty() ? "without a slot" : "through slot " + view.slot,
                      SlotName(view.id)));
    }
    if (view.timeline != primary.timeline && view.timeline != 0) {
      Add("other_timeline", view.id,
          fmt::format("is on timeline {}, {} is on {}", view.timeline, primary.id,
                      primary.timeline));
    } else if (!streams && view.received > primary.received) {
      // While nothing streams, what a standby has cannot be newer than what the primary wrote.
      Add("diverged", view.id,
          fmt::format("has WAL up to {}, {} only up to {}", view.received.ToString(), primary.id,
                      primary.received.ToString()));
    }
    if (view.replay_paused) Add("replay_paused", view.id, "replay is paused");
    if (view.lag_bytes &&
        static_cast<uint64_t>(std::max<int64_t>(*view.lag_bytes, 0)) > config_.max_lag_bytes) {
      Add("lagging", view.id,
          fmt::format("is {} behind, max_lag is {}", ctl::FormatBytes(*view.lag_bytes),
                      ctl::FormatBytes(static_cast<int64_t>(config_.max_lag_bytes))));
    }
  }

  void CheckDoor(const NodeView& view) {
    if (view.gate == "held") Add("traffic_held", view.id, "clients wait");
    const auto index = config_.Find(view.id);
    if (view.gate.empty() && index && config_.nodes[*index].gate.is_set()) {
      Add("gate_off", view.id,
          fmt::format("clients are to connect to {}", config_.nodes[*index].gate.ToString()));
    }
    if (view.gate == "down") Add("gate_down", view.id, view.gate_reason);
    if (view.gate != "open" || !primary_) return;
    const HostPort& wanted = config_.nodes[*primary_].postgres;
    if (view.gate_target != wanted) {
      Add("gate_astray", view.id,
          fmt::format("leads to {}, the primary is {} at {}", view.gate_target.ToString(),
                      views_[*primary_].id, wanted.ToString()));
    }
  }

  void CheckHealth(const NodeView& view) {
    if (view.disk_is_sick()) Add("disk_sick", view.id, "a disk is " + view.disk);
    if (!view.archive_error.empty()) Add("archive_failing", view.id, view.archive_error);
    for (const NodeFault& fault : view.faults) {
      if (!fault.severe) continue;
      Add("node_fault", view.id,
          fmt::format("{} {}: {}", fault.fault_class, fault.subject, fault.message));
    }
  }

  void CheckCondemned(const NodeView& view, const NodeView& primary) {
    if (!view.is_condemned()) return;
    Add("rebuild_wanted", view.id,
        fmt::format("{}; rebuild wanted: metalctl shard replace {} once its drive is changed",
                    view.CondemnedFor(), view.id));
    const auto in = SetInForce(config_, primary);
    const auto index = config_.Find(view.id);
    if (in && index && std::ranges::find(*in, *index) == in->end()) {
      Add("left_out", view.id, fmt::format("commits wait for {}", primary.synchronous_standbys));
    }
    const uint64_t kept = primary.received.value - std::min(view.received, primary.received).value;
    if (view.received.valid() && kept > config_.max_lag_bytes) {
      Add("slot_holds_wal", primary.id,
          fmt::format("slot {} keeps {} of WAL for {}", SlotName(view.id),
                      ctl::FormatBytes(static_cast<int64_t>(kept)), view.id));
    }
  }

  void CheckPolicy(const NodeView& primary) {
    if (!primary.followers_seen) return;
    int counted = 0;
    std::vector<std::string> ignored;
    for (const Follower& follower : primary.followers) {
      const bool counts = follower.sync_state == "sync" || follower.sync_state == "quorum";
      if (!config_.Find(follower.name)) {
        if (counts)
          Add("foreign_synchronous", primary.id, follower.name + " counts as synchronous");
        continue;
      }
      if (follower.state != "streaming") continue;
      if (counts) ++counted;
      const bool sick = views_[*config_.Find(follower.name)].is_condemned();
      if (follower.sync_state == "async" && !sick) ignored.push_back(follower.name);
    }
    for (const std::string& name : ignored) {
      Add("policy_not_in_force", name,
          fmt::format("streams from {} asynchronously, the policy is {}", primary.id,
                      config_.policy.ToString()));
    }
    if (counted < config_.policy.count) {
      Add("too_few_synchronous", primary.id,
          fmt::format("{} of its standbys acknowledge commits, the policy is {}",
                      counted == 0 ? "none" : std::to_string(counted), config_.policy.ToString()));
    }
  }

  const ShardConfig& config_;
  const std::vector<NodeView>& views_;
  const uint64_t term_;
  const std::optional<size_t> primary_;
  std::vector<Finding> found_;
};

}  // namespace

std::span<const FindingKind> FindingKinds() { return kKinds; }

std::vector<Finding> Analyse(const ShardConfig& config, const std::vector<NodeView>& views) {
  METAL_CHECK(config.nodes.size() == views.size());
  return Analysis(config, views).Run();
}

void LeaveOutStrangers(std::vector<NodeView>& views) {
  std::map<uint64_t, size_t> nodes;  // by database
  for (const NodeView& view : views) {
    if (view.answered && view.system_id != 0) ++nodes[view.system_id];
  }
  for (NodeView& view : views) {
    if (!view.answered || view.system_id == 0) continue;
    const auto others = std::ranges::find_if(nodes, [&](const auto& each) {
      return each.first != view.system_id && 2 * each.second > views.size();
    });
    if (others == nodes.end()) continue;
    view = UnreachableView(
        view.id, fmt::format("its data directory is another database's (system identifier {}, that "
                             "of the others is {}). HINT: {}",
                             view.system_id, others->first, Kind("different_systems").hint));
  }
}

bool SeenStreaming(const NodeView& primary, std::string_view id) {
  if (!primary.followers_seen) return true;
  return std::any_of(primary.followers.begin(), primary.followers.end(), [&](const Follower& each) {
    return each.name == id && (each.state == "streaming" || each.state == "catchup");
  });
}

bool HasErrors(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& each) { return each.kind->weight == kError; });
}

uint64_t HighestTerm(const std::vector<NodeView>& views) {
  uint64_t term = 0;
  for (const NodeView& view : views) {
    if (view.answered) term = std::max(term, view.term);
  }
  return term;
}

std::optional<size_t> FindPrimary(const std::vector<NodeView>& views) {
  const uint64_t term = HighestTerm(views);
  std::optional<size_t> found;
  for (size_t i = 0; i < views.size(); ++i) {
    if (!views[i].is_ordered_primary() || views[i].term != term) continue;
    if (found) return std::nullopt;  // two orders of one term: neither is believed
    found = i;
  }
  return found;
}

std::optional<size_t> FindPromoting(const ShardConfig& config, const std::vector<NodeView>& views) {
  for (size_t i = 0; i < views.size(); ++i) {
    const NodeView& view = views[i];
    if (view.answered && view.term == HighestTerm(views) && view.wanted == NodeRole::kPrimary &&
        !view.fenced && view.is_standby() && !view.has_fatal_disk() &&
        config.IsOurs(view.orchestrator)) {
      return i;
    }
  }
  return std::nullopt;
}

}  // namespace metal::shard
