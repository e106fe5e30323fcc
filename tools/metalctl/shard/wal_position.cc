#include "tools/metalctl/shard/wal_position.h"

#include <algorithm>

#include "agent/base/status.h"

namespace metal::shard {
namespace {

// Where each timeline of the history ends for this node; the present one ends at what it received.
std::vector<TimelineSwitch> Line(const WalPosition& position) {
  std::vector<TimelineSwitch> line = position.history;
  line.push_back({position.timeline, position.received});
  return line;
}

const WalPosition& PositionOf(const std::vector<Standing>& standings, size_t node) {
  return std::find_if(standings.begin(), standings.end(),
                      [&](const Standing& each) { return each.node == node; })
      ->position;
}

// Each has a term that the other has not, or they disagree about one. What is older than what is
// known of either does not count.
bool PartedByTerms(const WalPosition& first, const WalPosition& second) {
  if (first.terms.empty() || second.terms.empty()) return false;
  const uint64_t from = std::max(first.terms.front().term, second.terms.front().term);
  const auto older = [from](const TermStart& each) { return each.term < from; };
  auto a = std::ranges::find_if_not(first.terms, older);
  auto b = std::ranges::find_if_not(second.terms, older);
  for (; a != first.terms.end() && b != second.terms.end(); ++a, ++b) {
    if (*a != *b) return true;
  }
  return false;
}

// The latest term wins, and where that is not known of all, the newest timeline: it was begun when
// all that counted until then was known. Of one, the most WAL. A primary writes the row of its term
// before a commit can count on another node.
bool IsNewer(const WalPosition& a, const WalPosition& b, bool by_term) {
  if (by_term && a.terms.back().term != b.terms.back().term) {
    return a.terms.back().term > b.terms.back().term;
  }
  if (a.timeline != b.timeline) return a.timeline > b.timeline;
  return a.received > b.received;
}

// A node that diverged from the winner without having been on one of the winner's timelines as its
// last: its own branch was begun by a promotion too, and nobody knows which one clients saw.
// Unless the terms say it: the later one was begun with the proof that nothing was missing.
bool IsBranchOfItsOwn(const WalPosition& node, const WalPosition& winner) {
  if (!node.terms.empty() && !winner.terms.empty() &&
      node.terms.back().term < winner.terms.back().term) {
    return false;
  }
  if (node.timeline == winner.timeline) return true;
  const auto line = Line(winner);
  return std::none_of(line.begin(), line.end(),
                      [&](const TimelineSwitch& each) { return each.timeline == node.timeline; });
}

}  // namespace

Ancestry Compare(const WalPosition& first, const WalPosition& second) {
  if (PartedByTerms(first, second)) return Ancestry::kDiverged;
  const auto a = Line(first);
  const auto b = Line(second);
  size_t shared = 0;  // timelines that both have passed in the same way
  while (shared < a.size() && shared < b.size() && a[shared] == b[shared]) ++shared;
  if (shared == a.size() && shared == b.size()) return Ancestry::kSame;
  if (shared == a.size()) return Ancestry::kBehind;
  if (shared == b.size()) return Ancestry::kAhead;
  if (a[shared].timeline != b[shared].timeline) return Ancestry::kDiverged;
  // One may end within the timeline on which the other went on.
  if (shared + 1 == a.size() && a[shared].lsn <= b[shared].lsn) return Ancestry::kBehind;
  if (shared + 1 == b.size() && b[shared].lsn <= a[shared].lsn) return Ancestry::kAhead;
  return Ancestry::kDiverged;
}

absl::StatusOr<Choice> ChooseLeader(const std::vector<Standing>& standings,
                                    const std::vector<std::string>& names,
                                    std::optional<size_t> wanted) {
  const bool by_term = std::ranges::none_of(
      standings, [](const Standing& each) { return each.position.terms.empty(); });
  const auto newer = [by_term](const Standing& a, const Standing& b) {
    return IsNewer(a.position, b.position, by_term);
  };
  const auto winner =
      std::max_element(standings.begin(), standings.end(),
                       [&](const Standing& a, const Standing& b) { return newer(b, a); });
  if (winner == standings.end()) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "no node has WAL that is known. HINT: metalctl shard status");
  }
  Choice choice;
  const Standing* leader = nullptr;
  for (const Standing& each : standings) {
    if (Compare(each.position, winner->position) == Ancestry::kDiverged) {
      if (IsBranchOfItsOwn(each.position, winner->position)) {
        return base::Error(
            absl::StatusCode::kFailedPrecondition,
            "{} and {} have histories of their own on timelines {} and {}: which one "
            "clients saw is not known. HINT: keep the right one: metalctl shard "
            "replace NODE on the other, or failover --to NODE --accept-data-loss",
            names[winner->node], names[each.node], winner->position.timeline,
            each.position.timeline);
      }
      choice.diverged.push_back(each.node);
      continue;
    }
    if (!each.may_lead) continue;
    const bool better = leader == nullptr || newer(each, *leader) ||
                        (!newer(*leader, each) && leader->disk_sick && !each.disk_sick);
    if (each.node == wanted || (better && (leader == nullptr || leader->node != wanted))) {
      leader = &each;
    }
  }
  if (leader == nullptr || (wanted && leader->node != *wanted)) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "{} cannot lead: {}. HINT: metalctl shard status",
                       wanted ? names[*wanted] : "no node",
                       wanted ? "it did not answer, or it has WAL beside the shard's history"
                              : "those that answered are fenced or down");
  }
  choice.leader = leader->node;
  if (Compare(PositionOf(standings, choice.leader), winner->position) == Ancestry::kBehind) {
    choice.ahead = winner->node;
  }
  return choice;
}

Choice LeadRegardless(const std::vector<Standing>& standings, size_t leader) {
  Choice choice;
  choice.leader = leader;
  const WalPosition& position = PositionOf(standings, leader);
  for (const Standing& each : standings) {
    const Ancestry ancestry = Compare(each.position, position);
    if (ancestry == Ancestry::kAhead || ancestry == Ancestry::kDiverged) {
      choice.diverged.push_back(each.node);
    }
  }
  return choice;
}

}  // namespace metal::shard
