#include "agent/node/rewind/ancestry.h"

#include <algorithm>
#include <vector>

#include "agent/base/status.h"

namespace metal::node {
namespace {

// A stretch of a history: the timeline, and where it was left; the present one is open.
struct Stretch {
  base::TimelineId timeline = 0;
  base::Lsn end{UINT64_MAX};
};

std::vector<Stretch> StretchesOf(const WalPosition& position) {
  std::vector<Stretch> stretches;
  for (const TimelineSwitch& ended : position.history) {
    stretches.push_back({ended.timeline, ended.switch_lsn});
  }
  stretches.push_back({position.timeline});
  return stretches;
}

}  // namespace

Fork FindFork(const WalPosition& position, const WalPosition& source) {
  std::vector<Stretch> ours = StretchesOf(position);
  const std::vector<Stretch> theirs = StretchesOf(source);
  if (position.history.empty() && position.timeline > 1) {
    // A copy that has no WAL yet lacks the history file too: before its timeline came what came
    // before it elsewhere.
    const auto same = std::ranges::find(theirs, position.timeline, &Stretch::timeline);
    if (same != theirs.end()) ours.insert(ours.begin(), theirs.begin(), same);
  }
  Fork fork;
  for (size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
    if (ours[i].timeline != theirs[i].timeline) break;
    fork.timeline = ours[i].timeline;
    fork.lsn = std::min(ours[i].end, theirs[i].end);
    if (ours[i].end != theirs[i].end) break;
  }
  return fork;
}

absl::Status CheckAncestry(const WalPosition& position, const WalPosition& source) {
  const Fork fork = FindFork(position, source);
  const base::Lsn last = std::max(position.received, position.replayed);
  const bool shared_timeline = fork.timeline != 0 && fork.timeline == position.timeline;
  if (shared_timeline && last <= fork.lsn) return absl::OkStatus();
  const std::string where =
      fork.timeline == 0
          ? std::string("the two share no timeline")
          : fmt::format("they parted on timeline {} at {}", fork.timeline,
                        fork.lsn.value == UINT64_MAX ? "its end" : fork.lsn.ToString());
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "this node is on timeline {} at {}, the source on timeline {}: {}. HINT: Rewind "
                  "or Clone",
                  position.timeline, last.ToString(), source.timeline, where),
      {"DIVERGED",
       {{"fork_timeline", fmt::format("{}", fork.timeline)},
        {"fork_lsn", fork.lsn.value == UINT64_MAX ? "" : fork.lsn.ToString()}}});
}

}  // namespace metal::node
