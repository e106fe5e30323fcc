// What a shard should be around its primary: everyone follows it through a slot, the policy is in
// force, the doors lead to it.
#include <algorithm>
#include <memory>
#include <optional>

#include "agent/base/rewind_reasons.h"
#include "agent/base/status.h"
#include "fmt/ranges.h"
#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/shard/procedure.h"

namespace metal::shard {
namespace {

constexpr absl::Duration kBeginTermPatience = absl::Seconds(60);
constexpr absl::Duration kStreamingPatience = absl::Seconds(30);
// A standby tries every half second; one that has not got through for longer is asked why.
constexpr absl::Duration kAskWhy = absl::Seconds(3);
constexpr absl::Duration kAskAgain = absl::Seconds(10);
constexpr absl::Duration kStatusPatience = absl::Seconds(2);
// Of a change of the set: whoever looks after the shard looks at nothing else meanwhile.
constexpr absl::Duration kSetPatience = absl::Seconds(10);
constexpr absl::Duration kCopiesPatience = absl::Seconds(10);
constexpr absl::Duration kVerifyPatience = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(50);
// A door opens by itself after 30 s, and in the middle of a change to a server that is no primary.
constexpr absl::Duration kHoldAgain = absl::Seconds(5);

std::string ReasonOf(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  return reason ? reason->reason : "";
}

// The node has WAL or terms beside the primary's history, or a rewind of it was cut off.
bool NeedsRewind(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == "DIVERGED" || reason == "HISTORY_DIVERGED" ||
         reason == "DATA_DIRECTORY_INCOMPLETE";
}

// Without its next step.
std::string CauseOf(const absl::Status& status) {
  const std::string text(status.message());
  return text.substr(0, text.find(". HINT: "));
}

absl::Status NotOurs(const TermHolder& holder) {
  return base::Error(absl::StatusCode::kFailedPrecondition,
                     "term {} is held by {}: its orchestrator looks after the shard. HINT: "
                     "metalctl shard reparent takes the shard over with a term of its own",
                     holder.term, holder.orchestrator);
}

}  // namespace

absl::Status Procedure::PrepareLeader(size_t leader, const TermHolder& holder) {
  std::vector<std::string> slots;
  for (const std::string& id : IdsOf(Others(leader))) slots.push_back(SlotName(id));
  const std::vector<std::string> standbys = IdsOf(WantedSet(config_, views_, leader));
  return Step("prepare", NameOf(leader), [&]() -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(calls_.node(leader).ReconcileSlots(holder, slots));
    METAL_RETURN_IF_ERROR(calls_.node(leader).SetSynchronousStandbys(
        holder, {config_.policy, standbys, views_[leader].synchronous_standbys}));
    return fmt::format("{} slots, {}", slots.size(), config_.policy.Setting(standbys));
  });
}

bool Procedure::FollowsRightly(const NodeView& view, size_t primary, uint64_t term) const {
  const HostPort sender{view.sender_host, view.sender_port};
  return view.is_standby() && view.receiver_state == "streaming" && view.term == term &&
         view.wanted != NodeRole::kPrimary && sender == config_.nodes[primary].postgres &&
         view.slot == SlotName(view.id);
}

absl::StatusOr<std::string> Procedure::Follow(size_t node, size_t primary,
                                              const TermHolder& holder) {
  METAL_RETURN_IF_ERROR(
      calls_.node(node).FollowPrimary(holder, config_.nodes[primary].postgres, FollowBy::kSlot));
  return fmt::format("follows {}", NameOf(primary));
}

absl::Status Procedure::WaitUntilStreaming(size_t node, size_t primary, const TermHolder& holder) {
  base::Clock& clock = calls_.clock();
  const HostPort& source = config_.nodes[primary].postgres;
  const base::MonotonicTime begin = clock.Monotonic();
  base::MonotonicTime ask = begin + kAskWhy;
  std::optional<base::Lsn> had;
  NodeView view;
  do {
    METAL_ASSIGN_OR_RETURN(view, calls_.node(node).GetStatus(kStatusPatience));
    const HostPort sender{view.sender_host, view.sender_port};
    if (view.is_standby() && view.receiver_state == "streaming" && sender == source) {
      // For a moment also one streams whose WAL the primary has removed: it has to get something,
      // or to be up to date as the primary sees it.
      if (!had) had = view.received;
      if (view.received > *had) return absl::OkStatus();
      METAL_ASSIGN_OR_RETURN(const NodeView leader,
                             calls_.node(primary).GetStatus(kStatusPatience));
      const bool up_to_date = std::ranges::any_of(leader.followers, [&](const Follower& each) {
        return each.name == NameOf(node) && each.state == "streaming";
      });
      if (up_to_date) return absl::OkStatus();
    }
    if (view.is_standby() && clock.Monotonic() >= ask) {
      // While it could not answer its order was obeyed unchecked; now it is checked.
      const absl::Status followed =
          calls_.node(node).FollowPrimary(holder, source, FollowBy::kSlot);
      if (NeedsRewind(followed)) return followed;
      const absl::Status may = calls_.node(node).TryRewind(holder, source);
      if (ReasonOf(may) == "WAL_MISSING") return may;
      ask = clock.Monotonic() + kAskAgain;
    }
    clock.Sleep(kPoll);
  } while (clock.Monotonic() < begin + kStreamingPatience);
  return base::Error(absl::StatusCode::kDeadlineExceeded,
                     "it was told to follow {} and receives nothing: its receiver is {}. HINT: "
                     "the server's log on {} says why",
                     NameOf(primary), view.receiver_state.empty() ? "absent" : view.receiver_state,
                     NameOf(node));
}

absl::Status Procedure::FollowFromAnyRole(size_t node, size_t primary, const TermHolder& holder) {
  NodeCalls& calls = calls_.node(node);
  const absl::Status followed =
      calls.FollowPrimary(holder, config_.nodes[primary].postgres, FollowBy::kSlot);
  if (ReasonOf(followed) != "ROLE_TRANSITION") return followed;
  // It writes without an order, or by one of a term that is over: it becomes a standby with all of
  // its WAL.
  METAL_RETURN_IF_ERROR(calls.BeginTerm(holder, kBeginTermPatience).status());
  return calls.FollowPrimary(holder, config_.nodes[primary].postgres, FollowBy::kSlot);
}

absl::Status Procedure::StartToFollow(size_t node, size_t primary, const TermHolder& holder) {
  METAL_RETURN_IF_ERROR(FollowFromAnyRole(node, primary, holder));
  if (views_[node].running()) return absl::OkStatus();
  const absl::Status started = calls_.node(node).StartPostgres();
  // It may have come up meanwhile, with the order that it had.
  if (!started.ok() && ReasonOf(started) != "ROLE_TRANSITION") return started;
  // Where the WAL of a crashed server ends is known only now: asked again, a node that diverged
  // says so.
  return FollowFromAnyRole(node, primary, holder);
}

absl::StatusOr<std::string> Procedure::Rejoin(size_t node, size_t primary, const TermHolder& holder,
                                              bool* judged) {
  const NodeView& view = views_[node];
  if (!view.answered) return absl::UnavailableError(view.no_answer);
  NodeCalls& calls = calls_.node(node);
  if (FollowsRightly(view, primary, holder.term) && SeenStreaming(views_[primary], NameOf(node))) {
    METAL_RETURN_IF_ERROR(calls.ReconcileSlots(holder, {}));  // of a reparent that was cut off
    return "follows already";
  }
  if (view.has_fatal_disk() && !view.running()) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "its server is not started on a disk that is condemned ({}). HINT: rebuild "
                       "wanted: metalctl shard replace {} once its drive is changed; metalctl disk "
                       "acknowledge on the node when the fault is over",
                       view.CondemnedFor(), NameOf(node));
  }
  if (view.fenced_by_disk() && !view.running() && view.server != ServerState::kEmpty) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "it is down and fenced because of its disk ({}): what is on it may be short "
                       "of what it acknowledged. HINT: metalctl shard replace {} once its drive is "
                       "changed; when the disk is known to be good: metalctl unfence --term {} "
                       "there, then this again",
                       view.fence_reason, NameOf(node), view.term);
  }
  if (view.server == ServerState::kEmpty) {
    METAL_RETURN_IF_ERROR(CloneNode(node, primary, holder, false));
    return fmt::format("cloned, follows {}", NameOf(primary));
  }
  absl::Status streams = StartToFollow(node, primary, holder);
  *judged = streams.ok() || NeedsRewind(streams);
  if (streams.ok()) streams = WaitUntilStreaming(node, primary, holder);
  const bool rewinds = NeedsRewind(streams);
  if (rewinds) {
    METAL_RETURN_IF_ERROR(calls.BeginTerm(holder, kBeginTermPatience).status());
    METAL_RETURN_IF_ERROR(calls.Rewind(holder, config_.nodes[primary].postgres));
    streams = WaitUntilStreaming(node, primary, holder);
  }
  METAL_RETURN_IF_ERROR(streams);
  // As a standby it keeps WAL for nobody.
  METAL_RETURN_IF_ERROR(calls.ReconcileSlots(holder, {}));
  return fmt::format("{}follows {}", rewinds ? "rewound, " : "", NameOf(primary));
}

int Procedure::AwaitCopies(size_t node, size_t primary, int wanted) {
  base::Clock& clock = calls_.clock();
  const base::MonotonicTime end = clock.Monotonic() + kCopiesPatience;
  const std::vector<std::string> names = IdsOf(Others(primary));
  base::Lsn flushed;
  int copies = 0;
  do {
    const auto view = calls_.node(primary).GetStatus(kStatusPatience);
    if (!view.ok()) return 0;
    if (!flushed.valid()) flushed = view->received;
    copies = static_cast<int>(std::ranges::count_if(view->followers, [&](const Follower& each) {
      return each.name != NameOf(node) && std::ranges::find(names, each.name) != names.end() &&
             each.state == "streaming" && each.flushed >= flushed;
    }));
    if (copies >= wanted) break;
    clock.Sleep(kPoll);
  } while (clock.Monotonic() < end);
  return copies;
}

absl::Status Procedure::CloneInstead(size_t node, size_t primary, const TermHolder& holder,
                                     const absl::Status& why) {
  const std::string cause = CauseOf(why);
  // What both histories share may have been acknowledged by this node. Whole as it is, it is a copy
  // of that, and the primary must not stay the only one.
  const bool destroyed = ReasonOf(why) == "DATA_DIRECTORY_INCOMPLETE";
  const int needed = std::max(config_.policy.count, 1);
  const int copies = destroyed ? needed : AwaitCopies(node, primary, needed);
  if (copies < needed) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "it cannot follow as it is: {}. It is not replaced by a copy, for {} other standbys have "
        "all that the primary has and the policy is {}: its directory may be needed. HINT: bring "
        "another standby back and run this again, or metalctl shard replace {} --force",
        cause, copies, config_.policy.ToString(), NameOf(node));
  }
  log_.Note(
      fmt::format("{} cannot follow as it is: {}. Its data directory goes, with what only it had, "
                  "and becomes a copy",
                  NameOf(node), cause));
  ReadViews();
  return Step("clone", NameOf(node), [&]() -> absl::StatusOr<std::string> {
    const absl::Status cloned = CloneNode(node, primary, holder, true);
    if (!cloned.ok()) {
      return base::Annotate(cloned,
                            fmt::format("it cannot follow as it is ({}), nor be cloned", cause));
    }
    METAL_RETURN_IF_ERROR(calls_.node(node).ReconcileSlots(holder, {}));
    return fmt::format("cloned, follows {}", NameOf(primary));
  });
}

absl::Status Procedure::Verify(size_t primary, const TermHolder& holder) {
  return Step("verify", "", [&]() -> absl::StatusOr<std::string> {
    base::Clock& clock = calls_.clock();
    const base::MonotonicTime end = clock.Monotonic() + kVerifyPatience;
    while (true) {
      ReadViews();
      const bool leads = FindPrimary(views_) == primary;
      bool follow = true;
      for (const size_t node : Others(primary)) {
        const bool left =
            std::find(left_behind_.begin(), left_behind_.end(), NameOf(node)) != left_behind_.end();
        follow = follow && (left || (FollowsRightly(views_[node], primary, holder.term) &&
                                     SeenStreaming(views_[primary], NameOf(node))));
      }
      if (leads && follow) return fmt::format("{} leads, term {}", NameOf(primary), holder.term);
      if (clock.Monotonic() >= end) break;
      clock.Sleep(kPoll);
    }
    return base::Error(
        absl::StatusCode::kDeadlineExceeded,
        "the nodes do not say what they should after {}. HINT: metalctl shard status",
        absl::FormatDuration(kVerifyPatience));
  });
}

std::vector<size_t> Procedure::Doors() const {
  std::vector<size_t> doors;
  for (size_t i = 0; i < views_.size(); ++i) {
    if (views_[i].answered && !views_[i].gate.empty()) doors.push_back(i);
  }
  return doors;
}

absl::Status Procedure::HoldTraffic(size_t primary, const TermHolder& holder) {
  for (size_t i = 0; i < views_.size(); ++i) {
    if (views_[i].answered || !config_.nodes[i].gate.is_set()) continue;
    log_.Note(
        fmt::format("{} does not answer: the door there is not held and not led on, who comes "
                    "through it has errors until metalctl shard recover reaches it",
                    NameOf(i)));
  }
  held_at_ = calls_.clock().Monotonic();
  const std::vector<size_t> doors = Doors();
  const auto held = OnEach("hold", doors, [&](size_t node) -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(calls_.node(node).HoldTraffic(holder));
    return "held";
  });
  for (const absl::Status& each : held) {
    if (each.ok()) continue;
    ReleaseTraffic(primary, holder, doors);
    return base::Annotate(each, "traffic could not be held, nothing was changed");
  }
  return absl::OkStatus();
}

void Procedure::KeepHolding(const TermHolder& holder) {
  const base::MonotonicTime now = calls_.clock().Monotonic();
  if (now - held_at_ < kHoldAgain) return;
  held_at_ = now;
  OnEach("hold_longer", Doors(), [&](size_t node) -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(calls_.node(node).HoldTraffic(holder));
    return "held";
  });
}

void Procedure::ReleaseTraffic(size_t primary, const TermHolder& holder,
                               const std::vector<size_t>& doors) {
  OnEach("release", doors, [&](size_t node) -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(
        calls_.node(node).ReleaseTraffic(holder, config_.nodes[primary].postgres));
    return fmt::format("leads to {}", NameOf(primary));
  });
}

void Procedure::LeaveBehind(size_t node, const absl::Status& why) {
  left_behind_.push_back(NameOf(node));
  const std::string text(why.message());
  log_.Note(fmt::format("{} is left behind: {}{}", NameOf(node), text,
                        text.find("HINT: ") != std::string::npos
                            ? ""
                            : ". HINT: metalctl shard recover, when that is mended"));
}

absl::Status Procedure::PutPolicyInForce(size_t primary, const TermHolder& holder,
                                         const std::vector<bool>& follows) {
  const auto count = [&](const std::vector<size_t>& nodes) {
    return static_cast<int>(std::ranges::count_if(nodes, [&](size_t i) { return follows[i]; }));
  };
  std::vector<size_t> set = WantedSet(config_, views_, primary);
  if (count(set) < config_.policy.count) set = Others(primary);
  const std::string setting = config_.policy.Setting(IdsOf(set));
  // Its promotion may have kept more in force than it was given.
  const auto now = calls_.node(primary).GetStatus(kStatusPatience);
  const std::string in_force = (now.ok() ? *now : views_[primary]).synchronous_standbys;
  if (in_force == setting || count(set) < config_.policy.count) return absl::OkStatus();
  return Step("policy", NameOf(primary), [&]() -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(calls_.node(primary).SetSynchronousStandbys(
        holder, {config_.policy, IdsOf(set), in_force, accept_data_loss_}));
    return setting;
  });
}

absl::Status Procedure::ChangeSet(const SetChange& change) {
  METAL_RETURN_IF_ERROR(Look());
  const auto primary = FindPrimary(views_);
  const SetChange now = primary ? DecideSet(config_, views_, *primary) : SetChange();
  if (now.kind != change.kind || now.node != change.node || now.standbys != change.standbys) {
    return base::Error(absl::StatusCode::kAborted,
                       "the nodes do not say any more that {}. HINT: metalctl shard status",
                       change.why);
  }
  const NodeView& view = views_[*primary];
  if (!config_.IsOurs(view.orchestrator)) return NotOurs({view.term, view.orchestrator});
  const std::string setting = config_.policy.Setting(change.standbys);
  return Step("policy", NameOf(*primary), [&]() -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(calls_.node(*primary).SetSynchronousStandbys(
        {view.term, view.orchestrator}, {.policy = config_.policy,
                                         .standbys = change.standbys,
                                         .expected = view.synchronous_standbys,
                                         .reason = now.why,
                                         .patience = kSetPatience}));
    return setting;
  });
}

absl::Status Procedure::Settle(size_t primary, const TermHolder& holder) {
  if (!config_.IsOurs(holder.orchestrator)) return NotOurs(holder);
  ReadViews();
  std::vector<std::string> slots;
  const std::vector<size_t> others = Others(primary);
  for (const std::string& id : IdsOf(others)) slots.push_back(SlotName(id));
  const absl::Status slotted = Step("slots", NameOf(primary), [&]() -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(calls_.node(primary).ReconcileSlots(holder, slots));
    return fmt::format("{} slots", slots.size());
  });
  METAL_RETURN_IF_ERROR(slotted);
  const std::unique_ptr<bool[]> judged(new bool[views_.size()]());
  const std::vector<absl::Status> rejoined = OnEach(
      "rejoin", others, [&](size_t node) { return Rejoin(node, primary, holder, &judged[node]); });
  std::vector<bool> follows(views_.size());
  for (size_t i = 0; i < others.size(); ++i) {
    absl::Status status = rejoined[i];
    // A node that only cannot start, for want of space or WAL, keeps its directory.
    if (judged[others[i]] && base::NoRewindHelps(status)) {
      status = CloneInstead(others[i], primary, holder, status);
    }
    follows[others[i]] = status.ok();
    if (!status.ok()) LeaveBehind(others[i], status);
  }
  // One that was cloned may count again.
  if (std::ranges::any_of(others, [&](size_t i) { return views_[i].fenced_by_disk(); })) {
    ReadViews();
  }
  METAL_RETURN_IF_ERROR(PutPolicyInForce(primary, holder, follows));
  std::vector<size_t> astray;
  for (const size_t door : Doors()) {
    const NodeView& view = views_[door];
    if (view.gate != "open" || view.gate_target != config_.nodes[primary].postgres) {
      astray.push_back(door);
    }
  }
  ReleaseTraffic(primary, holder, astray);
  const absl::Status verified = Verify(primary, holder);
  for (const size_t node : others) NoteDiskFence(node);
  return verified;
}

// Whether its copy was made on a drive that is well, only whoever changed the drive knows.
void Procedure::NoteDiskFence(size_t node) {
  const NodeView& view = views_[node];
  if (!view.fenced_by_disk() || !view.running()) return;
  log_.Note(fmt::format(
      "{} follows and stays fenced ({}): it cannot lead, and does not count for commits. HINT: "
      "metalctl unfence --term {} there when its drive was changed and it was cloned since; else "
      "metalctl shard replace {}",
      NameOf(node), view.fence_reason, view.term, NameOf(node)));
}

}  // namespace metal::shard
