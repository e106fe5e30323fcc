#include "tools/metalctl/shard/synchronous_set.h"

#include <algorithm>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::shard {
namespace {

using Kind = SetChange::Kind;

std::vector<std::string> IdsOf(const ShardConfig& config, const std::vector<size_t>& nodes) {
  std::vector<std::string> ids;
  for (const size_t node : nodes) ids.push_back(config.nodes[node].id);
  return ids;
}

std::vector<size_t> Without(std::vector<size_t> nodes, size_t node) {
  std::erase(nodes, node);
  return nodes;
}

// Those that would be taken out, of the condemned: one that is fenced and whose acknowledgement
// does not count is out already.
std::vector<size_t> StillToGo(const std::vector<NodeView>& views, std::vector<size_t> condemned,
                              const std::vector<size_t>& in) {
  std::erase_if(condemned, [&](size_t i) { return IsOut(views[i]) && !std::ranges::count(in, i); });
  return condemned;
}

std::vector<size_t> CondemnedOf(const std::vector<NodeView>& views) {
  std::vector<size_t> nodes;
  for (size_t i = 0; i < views.size(); ++i) {
    if (views[i].is_condemned()) nodes.push_back(i);
  }
  return nodes;
}

const Follower* FollowerOf(const NodeView& primary, const std::string& id) {
  const auto found = std::ranges::find(primary.followers, id, &Follower::name);
  return found == primary.followers.end() ? nullptr : &*found;
}

std::vector<std::string> StreamingOf(const ShardConfig& config, const NodeView& primary,
                                     const std::vector<size_t>& nodes) {
  std::vector<std::string> ids = IdsOf(config, nodes);
  std::erase_if(ids, [&](const std::string& id) {
    const Follower* const follower = FollowerOf(primary, id);
    return follower == nullptr || follower->state != "streaming";
  });
  return ids;
}

// As the primary sees it: a receiver that hangs in a write does not know how far behind it is.
bool HasCaughtUp(const ShardConfig& config, const NodeView& view, const NodeView& primary,
                 size_t leader) {
  const HostPort sender{view.sender_host, view.sender_port};
  if (!view.is_standby() || view.fenced || view.disk_is_sick() || view.is_condemned()) return false;
  if (view.receiver_state != "streaming" || sender != config.nodes[leader].postgres) return false;
  const Follower* const follower = FollowerOf(primary, view.id);
  return follower != nullptr && follower->state == "streaming" &&
         follower->flushed.value + config.max_lag_bytes >= primary.received.value;
}

SetChange Nothing(std::string why) {
  SetChange change;
  change.why = std::move(why);
  return change;
}

std::string RebuildWanted(const std::string& id) {
  return fmt::format("rebuild wanted: metalctl shard replace {} once its drive is changed", id);
}

SetChange LeaveOut(const ShardConfig& config, const std::vector<NodeView>& views, size_t primary,
                   const std::vector<size_t>& in, size_t sick) {
  const std::string& id = config.nodes[sick].id;
  const std::vector<size_t> rest = Without(in, sick);
  const std::vector<std::string> streaming = StreamingOf(config, views[primary], rest);
  if (static_cast<int>(streaming.size()) < config.policy.count) {
    return Nothing(
        fmt::format("{} is sick ({}) and stays in the synchronous set: without it {} of the "
                    "standbys stream, the policy is {}; {}",
                    id, views[sick].CondemnedFor(), streaming.size(), config.policy.ToString(),
                    RebuildWanted(id)));
  }
  SetChange change{.kind = Kind::kLeaveOut,
                   .node = sick,
                   .standbys = IdsOf(config, rest),
                   .why = fmt::format("{} is sick: {}", id, views[sick].CondemnedFor())};
  if (static_cast<int>(rest.size()) == config.policy.count) {
    change.why += fmt::format("; every commit waits for {} now, and hangs when {} lost too",
                              fmt::join(change.standbys, " and "),
                              change.standbys.size() == 1 ? "it is" : "one of them is");
  }
  return change;
}

}  // namespace

bool IsOut(const NodeView& view) { return view.fenced_by_disk() && !view.is_primary(); }

std::optional<std::vector<size_t>> SetInForce(const ShardConfig& config, const NodeView& primary) {
  std::vector<size_t> in;
  std::vector<std::string> ids;
  for (size_t i = 0; i < config.nodes.size(); ++i) {
    const std::string& id = config.nodes[i].id;
    if (primary.synchronous_standbys.find('"' + id + '"') == std::string::npos) continue;
    in.push_back(i);
    ids.push_back(id);
  }
  if (config.policy.Setting(ids) != primary.synchronous_standbys) return std::nullopt;
  return in;
}

SetChange DecideSet(const ShardConfig& config, const std::vector<NodeView>& views, size_t primary) {
  const std::vector<size_t> condemned = CondemnedOf(views);
  const auto in = SetInForce(config, views[primary]);
  const std::vector<size_t> going = in ? StillToGo(views, condemned, *in) : condemned;
  if (going.size() > 1) {
    return Nothing(fmt::format("{} are sick: more than one member, so none leaves the set",
                               fmt::join(IdsOf(config, going), " and ")));
  }
  // Of one that is out already only the rebuild is asked for.
  const std::vector<size_t>& named = going.empty() ? condemned : going;
  const bool any = !named.empty() && named[0] != primary;
  const size_t sick = any ? named[0] : primary;
  if (!in || !views[primary].followers_seen) {
    if (!any) return {};
    return Nothing(fmt::format(
        "{} is sick ({}), and what is in force on {} is not the file's policy: metalctl "
        "shard recover",
        config.nodes[sick].id, views[sick].CondemnedFor(), config.nodes[primary].id));
  }
  if (any && std::ranges::find(*in, sick) != in->end()) {
    return LeaveOut(config, views, primary, *in, sick);
  }
  for (size_t i = 0; i < views.size(); ++i) {
    if (i == primary || std::ranges::find(*in, i) != in->end()) continue;
    if (!HasCaughtUp(config, views[i], views[primary], primary)) continue;
    std::vector<size_t> all = *in;
    all.insert(std::ranges::upper_bound(all, i), i);
    return {.kind = Kind::kTakeBack,
            .node = i,
            .standbys = IdsOf(config, all),
            .why = fmt::format("{} streams and has caught up, and no fault of its disk counts",
                               config.nodes[i].id)};
  }
  if (!any) return {};
  return Nothing(fmt::format("{} is sick ({}), its acknowledgement does not count; {}",
                             config.nodes[sick].id, views[sick].CondemnedFor(),
                             RebuildWanted(config.nodes[sick].id)));
}

std::vector<size_t> WantedSet(const ShardConfig& config, const std::vector<NodeView>& views,
                              size_t leader) {
  std::vector<size_t> all;
  for (size_t i = 0; i < views.size(); ++i) {
    if (i != leader) all.push_back(i);
  }
  // One that is down and fenced acknowledges nothing anyway.
  std::vector<size_t> rest = all;
  std::erase_if(rest, [&](size_t i) { return IsOut(views[i]); });
  const std::vector<size_t> going = StillToGo(views, CondemnedOf(views), {});
  if (going.size() == 1) rest = Without(std::move(rest), going[0]);
  if (rest == all) return all;
  const auto running =
      std::ranges::count_if(rest, [&](size_t i) { return views[i].running() && !views[i].fenced; });
  return running >= config.policy.count ? rest : all;
}

}  // namespace metal::shard
