// A primary for a shard that has none, or whose primary has to go: freeze every node in a new term,
// prove that nothing acknowledged is missing, promote the node with the most WAL.
#include <algorithm>

#include "agent/base/status.h"
#include "fmt/ranges.h"
#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/shard/procedure.h"
#include "tools/metalctl/shard/proof.h"

namespace metal::shard {
namespace {

constexpr absl::Duration kFreezePatience = absl::Seconds(60);
// For a primary that runs: its standbys take over its last WAL before they are frozen too.
constexpr absl::Duration kLeavingPatience = absl::Seconds(3);
// For nodes without which the proof holds: enough for one that answers, little for one that hangs.
constexpr absl::Duration kGrace = absl::Milliseconds(300);
// A primary that was not seen for longer may hang.
constexpr absl::Duration kFreshFacts = absl::Seconds(5);
constexpr absl::Duration kCatchUpPatience = absl::Seconds(10);

}  // namespace

absl::StatusOr<WalPosition> Procedure::Freeze(size_t node, const TermHolder& next,
                                              absl::Duration patience) {
  NodeCalls& calls = calls_.node(node);
  METAL_ASSIGN_OR_RETURN(TermAnswer answer, calls.BeginTerm(next, patience));
  if (views_[node].server == ServerState::kEmpty) {
    return base::Error(absl::StatusCode::kNotFound, "it has no data directory");
  }
  if (answer.postgres_down) {
    // Where its WAL ends is known once a start has read it.
    METAL_RETURN_IF_ERROR(calls.StartPostgres());
    METAL_ASSIGN_OR_RETURN(answer, calls.BeginTerm(next, patience));
  }
  if (answer.postgres_down || !answer.position.received.valid()) {
    return base::Error(absl::StatusCode::kFailedPrecondition, "where its WAL ends is not known");
  }
  return answer.position;
}

Procedure::Frozen Procedure::FreezeAll(const TermHolder& next, std::optional<size_t> leaving,
                                       std::optional<size_t> wanted) {
  Frozen frozen;
  frozen.positions.resize(views_.size());
  const auto freeze = [&](size_t node, absl::Duration patience) -> absl::StatusOr<std::string> {
    METAL_ASSIGN_OR_RETURN(const WalPosition position, Freeze(node, next, patience));
    frozen.positions[node] = position;
    return fmt::format("timeline {}, WAL up to {}", position.timeline,
                       position.received.ToString());
  };
  const auto note_denied = [&](const std::vector<absl::Status>& ends) {
    for (const absl::Status& end : ends) {
      if (absl::IsPermissionDenied(end)) frozen.denied = end;
    }
  };
  std::vector<size_t> nodes;
  for (size_t i = 0; i < views_.size(); ++i) {
    if (!views_[i].answered) continue;
    if (i == leaving && views_[i].is_primary() && !views_[i].disk_is_sick()) {
      note_denied(
          OnEach("begin_term", {i}, [&](size_t node) { return freeze(node, kLeavingPatience); }));
    } else {
      nodes.push_back(i);
    }
  }
  const Frozen before = frozen;
  const Enough enough{.test =
                          [&](const std::vector<bool>& ended) {
                            Frozen read = before;
                            for (size_t i = 0; i < nodes.size(); ++i) {
                              if (ended[i]) read.positions[nodes[i]] = frozen.positions[nodes[i]];
                              if (!ended[i] && nodes[i] == wanted) return false;
                            }
                            return Judge(read).holds;
                          },
                      .grace = kGrace};
  note_denied(OnEach(
      "begin_term", nodes, [&](size_t node) { return freeze(node, kFreezePatience); }, enough));
  return frozen;
}

Proof Procedure::Judge(const Frozen& frozen) const {
  std::vector<bool> answered;
  for (const auto& position : frozen.positions) answered.push_back(position.has_value());
  return ProveAcknowledged(config_, answered, RulesInForce(frozen.positions));
}

// From statuses, which are a moment old: what one of them knows better counts.
Proof Procedure::Foresee() const {
  std::vector<bool> answered;
  bool unread = false;
  for (const NodeView& view : views_) {
    answered.push_back(view.answered && view.server != ServerState::kEmpty);
    unread = unread || (answered.back() && !view.running());
  }
  Proof proof = ProveAcknowledged(config_, answered, {});
  if (unread) return proof;
  for (const NodeView& view : views_) {
    if (!view.running()) continue;
    WalPosition standing;
    standing.durability = view.durability;
    proof = ProveAcknowledged(config_, answered, RulesInForce({standing}));
    if (proof.holds) break;
  }
  return proof;
}

absl::StatusOr<std::string> Procedure::CheckProof(const Proof& proof,
                                                  const ChangeOptions& options) const {
  const size_t nodes = views_.size();
  const size_t count = nodes - proof.missing.size();
  if (proof.holds) {
    return fmt::format("{} of {} nodes answered, {} needed: every acknowledged commit is there",
                       count, nodes, proof.needed);
  }
  const std::string missing = fmt::format("{}", fmt::join(IdsOf(proof.missing), ", "));
  if (options.accept_data_loss && count > 0) {
    return fmt::format("accepted: commits may be lost that only {} had",
                       missing.empty() ? "nodes outside of the file" : missing);
  }
  if (proof.needed > nodes) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "with {} an acknowledged commit may be on nodes alone that {} does not name. "
        "HINT: put them back into it and run this again; --accept-data-loss leads "
        "without them",
        proof.decided_by, config_.file);
  }
  return base::Error(absl::StatusCode::kFailedPrecondition,
                     "with {} an acknowledged commit may be on the missing nodes alone: {} of {} "
                     "answered, {} needed; missing: {}. HINT: bring one of them back and run this "
                     "again; --accept-data-loss leads without them",
                     proof.decided_by, count, nodes, proof.needed, missing);
}

absl::Status Procedure::Prove(const Frozen& frozen, const ChangeOptions& options) {
  return Step("prove", "", [&]() { return CheckProof(Judge(frozen), options); });
}

absl::StatusOr<Choice> Procedure::Choose(const Frozen& frozen, const ChangeOptions& options,
                                         std::optional<size_t> leaving) {
  std::vector<Standing> standings;
  std::vector<std::string> names;
  const auto may_lead = [&](size_t i) {
    return frozen.positions[i] && !views_[i].fenced && (i != leaving || options.to == i);
  };
  // Nobody leads from a disk that may lose what it is given, as long as there is another: that
  // takes over the WAL which only such a node has.
  bool other = false;
  for (size_t i = 0; i < views_.size(); ++i) {
    other = other || (may_lead(i) && !views_[i].has_fatal_disk());
  }
  for (size_t i = 0; i < views_.size(); ++i) {
    names.push_back(NameOf(i));
    if (!frozen.positions[i]) continue;
    const bool avoided = other && options.to != i && views_[i].has_fatal_disk();
    standings.push_back({.node = i,
                         .may_lead = may_lead(i) && !avoided,
                         .disk_sick = views_[i].disk_is_sick() || views_[i].is_condemned(),
                         .position = *frozen.positions[i]});
  }
  Choice choice;
  const absl::Status decided = Step("choose", "", [&]() -> absl::StatusOr<std::string> {
    auto chosen = ChooseLeader(standings, names, options.to);
    if (!chosen.ok() && options.accept_data_loss && options.to && frozen.positions[*options.to]) {
      chosen = LeadRegardless(standings, *options.to);
    }
    if (!chosen.ok()) return chosen.status();
    choice = *std::move(chosen);
    std::string text = NameOf(choice.leader);
    if (choice.ahead) text += fmt::format(", after it took over WAL of {}", NameOf(*choice.ahead));
    for (const size_t node : choice.diverged) text += fmt::format("; {} diverged", NameOf(node));
    return text;
  });
  METAL_RETURN_IF_ERROR(decided);
  return choice;
}

absl::Status Procedure::CatchUp(size_t leader, size_t ahead, const TermHolder& next,
                                const WalPosition& target) {
  return Step("take_over", NameOf(leader), [&]() -> absl::StatusOr<std::string> {
    NodeCalls& calls = calls_.node(leader);
    METAL_RETURN_IF_ERROR(
        calls.FollowPrimary(next, config_.nodes[ahead].postgres, FollowBy::kNoSlot));
    METAL_RETURN_IF_ERROR(calls.WaitForLsn({target.timeline, target.received}, kCatchUpPatience));
    METAL_ASSIGN_OR_RETURN(const TermAnswer answer, calls.BeginTerm(next, kFreezePatience));
    if (answer.position.received < target.received) {
      return base::Error(absl::StatusCode::kFailedPrecondition, "it has WAL up to {} only",
                         answer.position.received.ToString());
    }
    return fmt::format("has WAL of {} up to {}", NameOf(ahead), target.received.ToString());
  });
}

absl::Status Procedure::Elect(const ChangeOptions& options, std::optional<size_t> leaving) {
  METAL_RETURN_IF_ERROR(CheckProof(Foresee(), options).status());  // while nothing is changed yet
  TermHolder next = NextTerm();
  Frozen frozen = FreezeAll(next, leaving, options.to);
  for (size_t i = 0; i < frozen.positions.size();) {
    const bool overtaken = frozen.positions[i] && IsOvertaken(*frozen.positions[i], &next);
    if (overtaken) frozen = FreezeAll(next, leaving, options.to);
    i = overtaken ? 0 : i + 1;
  }
  // Nodes that are there and refuse the caller are not missing: to accept a loss would be no help.
  if (!frozen.denied.ok() && !CheckProof(Judge(frozen), options).ok()) return frozen.denied;
  METAL_RETURN_IF_ERROR(Prove(frozen, options));
  METAL_ASSIGN_OR_RETURN(Choice choice, Choose(frozen, options, leaving));
  if (choice.ahead) {
    const size_t ahead = *choice.ahead;
    if (const absl::Status taken = CatchUp(choice.leader, ahead, next, *frozen.positions[ahead]);
        !taken.ok()) {
      // Without it, if the others prove that all acknowledged commits are among them.
      frozen.positions[ahead].reset();
      METAL_RETURN_IF_ERROR(Prove(frozen, options));
      METAL_ASSIGN_OR_RETURN(choice, Choose(frozen, options, leaving));
      if (choice.ahead) return taken;
    }
  }
  METAL_RETURN_IF_ERROR(PrepareLeader(choice.leader, next));
  std::vector<size_t> followers;
  for (const size_t node : Others(choice.leader)) {
    const bool diverged =
        std::find(choice.diverged.begin(), choice.diverged.end(), node) != choice.diverged.end();
    if (frozen.positions[node] && !diverged) followers.push_back(node);
  }
  METAL_RETURN_IF_ERROR(Lead(choice.leader, followers, next));
  return Settle(choice.leader, next);
}

absl::Status Procedure::Failover(const ChangeOptions& options) {
  if (options.accept_data_loss) AcceptDataLoss();
  METAL_RETURN_IF_ERROR(Look());
  const auto promoting = FindPromoting(config_, views_);
  if (promoting && (!options.to || options.to == promoting)) return FinishPromotion(*promoting);
  const auto primary = FindPrimary(views_);
  if (!primary) return Elect(options, std::nullopt);
  const NodeView& view = views_[*primary];
  const bool well = !view.disk_is_sick() && !view.has_fatal_disk() && view.seen < kFreshFacts;
  if (options.to != primary && (options.to || !well)) return Elect(options, primary);
  // As a repeated run finds it. One that is well is not left without being told where to go.
  log_.Note(fmt::format("{} is the primary and answers{}", NameOf(*primary),
                        options.to ? ""
                                   : ": metalctl shard reparent, or failover --to NODE, moves "
                                     "away from it"));
  return Settle(*primary, {view.term, view.orchestrator});
}

}  // namespace metal::shard
