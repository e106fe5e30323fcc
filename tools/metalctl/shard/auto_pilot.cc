#include "tools/metalctl/shard/auto_pilot.h"

#include <algorithm>

#include "fmt/format.h"
#include "tools/metalctl/shard/findings.h"

namespace metal::shard {
namespace {

using Kind = AutoChange::Kind;

const NodeFault* WorstFault(const NodeView& view) {
  const NodeFault* worst = nullptr;
  for (const NodeFault& fault : view.faults) {
    if (fault.wanted == FaultWish::kNothing) continue;
    if (worst == nullptr || fault.wanted > worst->wanted) worst = &fault;
  }
  return worst;
}

bool IsSick(const NodeView& view) {
  return view.answered &&
         (view.disk_is_sick() || std::ranges::any_of(view.faults, &NodeFault::fatal_disk) ||
          WorstFault(view) != nullptr);
}

// A primary that fenced itself is no primary any more, and still the one that asks.
bool FencedByItsDisk(const NodeView& view) {
  return view.answered && view.fenced && view.fence_reason.starts_with("disk: ");
}

// The standby that is well and has most WAL.
std::optional<size_t> BestStandby(const std::vector<NodeView>& views) {
  std::optional<size_t> best;
  for (size_t i = 0; i < views.size(); ++i) {
    const NodeView& view = views[i];
    if (!view.is_standby() || view.fenced || IsSick(view)) continue;
    if (!best || view.received > views[*best].received) best = i;
  }
  return best;
}

AutoChange Nothing(std::string why) {
  AutoChange change;
  change.why = std::move(why);
  return change;
}

}  // namespace

AutoChange DecideChange(const ShardConfig& config, const std::vector<NodeView>& views) {
  const auto sick = [&](size_t i) { return IsSick(views[i]) || FencedByItsDisk(views[i]); };
  std::vector<size_t> all;
  for (size_t i = 0; i < views.size(); ++i) {
    if (sick(i)) all.push_back(i);
  }
  if (all.empty()) return {};
  if (all.size() > 1) {
    return Nothing(fmt::format("{} and {} are sick: more than one member, so nothing is changed",
                               config.nodes[all[0]].id, config.nodes[all[1]].id));
  }
  const size_t node = all.front();
  const std::string& id = config.nodes[node].id;
  const auto primary = FindPrimary(views);
  const NodeFault* fault = WorstFault(views[node]);
  const bool fenced = !primary && FencedByItsDisk(views[node]);
  if (!fenced && (!primary || *primary != node)) {
    return Nothing(
        fmt::format("{} is sick and does not lead: metalctl shard replace {} once its "
                    "drive is",
                    id, id));
  }
  if (!fenced && fault == nullptr) return {};
  const auto to = BestStandby(views);
  if (!to) return Nothing(fmt::format("{} is sick, and no standby that is well answers", id));
  AutoChange change;
  change.to = *to;
  change.kind = fenced || fault->wanted == FaultWish::kFailover ? Kind::kFailover : Kind::kReparent;
  change.may_be_forced = fault != nullptr && fault->fatal_disk;
  change.why = fault != nullptr
                   ? fmt::format("{} asks for it: {} {}", id, fault->fault_class, fault->subject)
                   : fmt::format("{} fenced itself: {}", id, views[node].fence_reason);
  return change;
}

AutoChange AutoPilot::Observe(const ShardConfig& config, const std::vector<NodeView>& views,
                              base::MonotonicTime now) {
  AutoChange change = DecideChange(config, views);
  const bool again = change == last_;
  last_ = change;
  if (change.kind == Kind::kNone) return change;
  if (!again) return Nothing("asked once: " + change.why);
  if (changed_ && now - *changed_ < kPause) {
    return Nothing(fmt::format("{}; the last change was less than {} ago", change.why,
                               absl::FormatDuration(kPause)));
  }
  changed_ = now;
  last_ = {};
  return change;
}

}  // namespace metal::shard
