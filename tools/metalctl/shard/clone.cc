// Nodes that are made from others: a new shard, and one node anew.
#include <algorithm>

#include "agent/base/status.h"
#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/shard/procedure.h"

namespace metal::shard {
namespace {

constexpr absl::Duration kBeginTermPatience = absl::Seconds(60);
constexpr absl::Duration kStatusPatience = absl::Seconds(2);

bool HasData(const NodeView& view) { return view.answered && view.server != ServerState::kEmpty; }

}  // namespace

absl::Status Procedure::CloneNode(size_t node, size_t primary, const TermHolder& holder,
                                  bool replace) {
  // A standby that streams is copied from first: the primary has clients to serve. One whose replay
  // is paused cannot begin, one on a sick disk is no source.
  std::optional<size_t> source;
  for (size_t i = 0; i < views_.size(); ++i) {
    if (i == node || !config_.nodes[i].transfer.is_set()) continue;
    const bool standby = FollowsRightly(views_[i], primary, holder.term) &&
                         !views_[i].replay_paused && !views_[i].is_condemned();
    if (standby || (i == primary && !source)) source = i;
  }
  if (!source) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "there is no node to clone it from. HINT: give transfer of the primary in {}",
        config_.file);
  }
  NodeCalls& calls = calls_.node(node);
  const absl::Status begun = calls.BeginTerm(holder, kBeginTermPatience).status();
  // What is to go need not be brought to rest first; whether the term is stored, the clone checks.
  if (!begun.ok() && !(replace && absl::IsDeadlineExceeded(begun))) return begun;
  METAL_RETURN_IF_ERROR(calls.Clone(holder, {.transfer = config_.nodes[*source].transfer,
                                             .primary = config_.nodes[primary].postgres,
                                             .replace = replace,
                                             .bytes_per_second_max = config_.clone_rate}));
  METAL_RETURN_IF_ERROR(WaitUntilStreaming(node, primary, holder));
  return LiftDiskFence(node, holder);
}

// What its primary fenced itself for has gone with the directory, unless the disk is as it was.
absl::Status Procedure::LiftDiskFence(size_t node, const TermHolder& holder) {
  METAL_ASSIGN_OR_RETURN(const NodeView view, calls_.node(node).GetStatus(kStatusPatience));
  if (!view.fenced_by_disk()) return absl::OkStatus();
  if (const NodeFault* const fault = view.condemned_by()) {
    log_.Note(
        fmt::format("{} is a copy and stays fenced: {} {} still counts. HINT: metalctl disk "
                    "acknowledge there when the drive is known to be good, then metalctl unfence "
                    "--term {}",
                    NameOf(node), fault->fault_class, fault->subject, holder.term));
    return absl::OkStatus();
  }
  METAL_RETURN_IF_ERROR(calls_.node(node).Unfence(holder));
  log_.Note(fmt::format("{} is a copy, and no longer fenced because of its disk", NameOf(node)));
  return absl::OkStatus();
}

absl::StatusOr<size_t> Procedure::ChooseFirst() const {
  std::optional<size_t> first;
  for (size_t i = 0; i < views_.size(); ++i) {
    const NodeView& view = views_[i];
    if (!view.answered) {
      return base::Error(absl::StatusCode::kUnavailable,
                         "{} does not answer: {}. HINT: a new shard is made of all its nodes",
                         NameOf(i), view.no_answer);
    }
    if (!HasData(view)) continue;
    // Beyond timeline 1 something was promoted: the others may have been part of a shard that lost
    // their data, and then this one may lack commits.
    if (first || view.timeline > 1) {
      return base::Error(
          absl::StatusCode::kFailedPrecondition,
          "{} has data. HINT: metalctl shard recover, or move the data directory away", NameOf(i));
    }
    first = i;
  }
  return first.value_or(0);
}

absl::Status Procedure::MakeFirst(size_t first, const InitOptions& options) {
  NodeCalls& calls = calls_.node(first);
  if (!HasData(views_[first])) {
    METAL_RETURN_IF_ERROR(Step("initdb", NameOf(first), [&]() -> absl::StatusOr<std::string> {
      const absl::Status made = calls.InitDataDirectory(options);
      if (!made.ok()) return made;
      return "made";
    }));
  }
  METAL_RETURN_IF_ERROR(Step("start", NameOf(first), [&]() -> absl::StatusOr<std::string> {
    const absl::Status started = calls.StartPostgres();
    if (!started.ok()) return started;
    return "runs";
  }));
  TermHolder next = NextTerm();
  METAL_RETURN_IF_ERROR(Step("begin_term", NameOf(first), [&]() -> absl::StatusOr<std::string> {
    TermAnswer answer;
    do {
      METAL_ASSIGN_OR_RETURN(answer, calls.BeginTerm(next, kBeginTermPatience));
    } while (IsOvertaken(answer.position, &next));
    return fmt::format("term {}", next.term);
  }));
  METAL_RETURN_IF_ERROR(Step("promote", NameOf(first), [&]() -> absl::StatusOr<std::string> {
    METAL_ASSIGN_OR_RETURN(const WalPoint point, calls.Promote(next));
    return fmt::format("timeline {}", point.timeline);
  }));
  return Settle(first, next);
}

absl::Status Procedure::Init(const InitOptions& options) {
  METAL_RETURN_IF_ERROR(Look());
  if (const auto primary = FindPrimary(views_)) {
    return Settle(*primary, {views_[*primary].term, views_[*primary].orchestrator});
  }
  if (const auto promoting = FindPromoting(config_, views_)) return FinishPromotion(*promoting);
  METAL_ASSIGN_OR_RETURN(const size_t first, ChooseFirst());
  return MakeFirst(first, options);
}

absl::Status Procedure::Replace(size_t node, bool force) {
  METAL_RETURN_IF_ERROR(Look());
  const auto primary = FindPrimary(views_);
  if (!primary || *primary == node || !views_[node].answered) {
    return base::Error(absl::StatusCode::kFailedPrecondition, "{} cannot be replaced: {}. HINT: {}",
                       NameOf(node),
                       !primary           ? "there is no primary"
                       : *primary == node ? "it is the primary"
                                          : "its agent does not answer",
                       !primary           ? "metalctl shard recover"
                       : *primary == node ? "metalctl shard reparent first"
                                          : "start metal-agent there");
  }
  const TermHolder holder{views_[*primary].term, views_[*primary].orchestrator};
  int others = 0;
  for (const size_t other : Others(*primary)) {
    others += other != node && FollowsRightly(views_[other], *primary, holder.term) ? 1 : 0;
  }
  if (others < config_.policy.count && HasData(views_[node]) && !force) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "without {} commits wait: {} standbys follow, the policy is {}. HINT: metalctl "
        "shard recover, or --force",
        NameOf(node), others, config_.policy.ToString());
  }
  std::vector<std::string> slots;
  for (const std::string& id : IdsOf(Others(*primary))) slots.push_back(SlotName(id));
  METAL_RETURN_IF_ERROR(calls_.node(*primary).ReconcileSlots(holder, slots));
  METAL_RETURN_IF_ERROR(Step("clone", NameOf(node), [&]() -> absl::StatusOr<std::string> {
    const absl::Status cloned = CloneNode(node, *primary, holder, HasData(views_[node]));
    if (!cloned.ok()) return cloned;
    return fmt::format("follows {}", NameOf(*primary));
  }));
  return Settle(*primary, holder);
}

}  // namespace metal::shard
