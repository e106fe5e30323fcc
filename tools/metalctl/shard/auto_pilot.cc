#include "tools/metalctl/shard/auto_pilot.h"

#include <algorithm>

#include "fmt/format.h"
#include "tools/metalctl/shard/findings.h"

namespace metal::shard {
namespace {

using Kind = AutoChange::Kind;

bool IsSick(const NodeView& view) {
  return view.is_condemned() || (view.answered && view.disk_is_sick());
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

// Nobody leads. The answers are as many as an election needs: then no others have begun another
// term.
AutoChange LeadAgain(const ShardConfig& config, const std::vector<NodeView>& views) {
  const auto returned = FindPromoting(config, views);
  if (!returned) return {};
  const std::string& id = config.nodes[*returned].id;
  const auto answers =
      std::count_if(views.begin(), views.end(), [](const NodeView& view) { return view.answered; });
  if (static_cast<int>(views.size()) - answers > config.policy.count) {
    return Nothing(fmt::format("nobody leads; {} led last, but too few nodes answer", id));
  }
  AutoChange change;
  change.kind = Kind::kRecover;
  change.to = *returned;
  change.why = fmt::format("nobody leads, and {} is ordered to: it came back as a standby", id);
  return change;
}

// Sick, and not out already: one that is fenced, and whose acknowledgement counts for nothing,
// would be taken out by no change, so that one more can be.
std::vector<size_t> SickOf(const ShardConfig& config, const std::vector<NodeView>& views,
                           std::optional<size_t> primary) {
  const auto in = primary ? SetInForce(config, views[*primary]) : std::vector<size_t>();
  std::vector<size_t> sick;
  for (size_t i = 0; i < views.size(); ++i) {
    const bool counts = !in || std::ranges::count(*in, i) > 0;
    if (IsSick(views[i]) && (counts || !IsOut(views[i]))) sick.push_back(i);
  }
  return sick;
}

// Who fenced itself because of its disk while it led, if nobody has led since.
std::optional<size_t> FencedLeader(const std::vector<NodeView>& views) {
  uint64_t last_led = 0;
  for (const NodeView& view : views) {
    if (view.answered) last_led = std::max(last_led, view.last_led_term);
  }
  for (size_t i = 0; i < views.size(); ++i) {
    if (views[i].fenced_by_disk() && views[i].fence_term >= last_led) return i;
  }
  return std::nullopt;
}

AutoChange ChangeOfSet(SetChange set) {
  if (set.kind == SetChange::Kind::kNone) return Nothing(std::move(set.why));
  AutoChange change;
  change.kind = Kind::kSet;
  change.why = set.why;
  change.set = std::move(set);
  return change;
}

}  // namespace

AutoChange DecideChange(const ShardConfig& config, const std::vector<NodeView>& views) {
  const auto primary = FindPrimary(views);
  const std::vector<size_t> all = SickOf(config, views, primary);
  if (all.size() > 1) {
    return Nothing(fmt::format("{} and {} are sick: more than one member, so nothing is changed",
                               config.nodes[all[0]].id, config.nodes[all[1]].id));
  }
  // A primary that fenced itself is no primary any more, and still the one that asks.
  const std::optional<size_t> fenced = primary ? std::nullopt : FencedLeader(views);
  if (all.empty() && !fenced) {
    return primary ? ChangeOfSet(DecideSet(config, views, *primary)) : LeadAgain(config, views);
  }
  const size_t node = fenced ? *fenced : all.front();
  const std::string& id = config.nodes[node].id;
  const NodeFault* fault = views[node].condemned_by();
  if (primary && *primary != node) {
    if (views[node].is_condemned()) return ChangeOfSet(DecideSet(config, views, *primary));
    return Nothing(
        fmt::format("a disk of {} is {}, as its probes alone see it", id, views[node].disk));
  }
  if (!primary && !fenced) {
    return Nothing(fmt::format("{} is sick, and no node leads: metalctl shard recover", id));
  }
  if (!fenced && (fault == nullptr || fault->wanted == FaultWish::kNothing)) return {};
  const auto to = BestStandby(views);
  if (!to) return Nothing(fmt::format("{} is sick, and no standby that is well answers", id));
  AutoChange change;
  change.to = *to;
  change.kind = fenced || fault->wanted == FaultWish::kFailover ? Kind::kFailover : Kind::kReparent;
  change.may_be_forced = views[node].has_fatal_disk();
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
  const bool of_set = change.kind == Kind::kSet;
  std::optional<base::MonotonicTime>& changed = of_set ? set_changed_ : changed_;
  const bool back = change.set.kind == SetChange::Kind::kTakeBack;
  const absl::Duration pause = !of_set ? pause_ : back ? kSetPause : kRetry;
  if (changed && now - *changed < pause) {
    return Nothing(fmt::format("{}; the last change was less than {} ago", change.why,
                               absl::FormatDuration(pause)));
  }
  changed = now;
  if (!of_set) pause_ = kPause;
  last_ = {};
  return change;
}

void AutoPilot::Ended(bool succeeded, base::MonotonicTime now) {
  changed_ = now;
  pause_ = succeeded ? kPause : retry_;
  retry_ = succeeded ? kRetry : std::min(2 * retry_, kPause);
}

}  // namespace metal::shard
