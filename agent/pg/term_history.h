// The history of terms as it is kept inside PostgreSQL (metal.term_history), and what two nodes'
// histories say about each other. Timelines cannot tell it: two servers that were promoted apart
// may be on the same number, and pg_rewind then sees no difference. Threading: pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "agent/observe/status_board.h"

namespace metal::pg {

// Oldest first; one row for each term that had a primary, written by it.
using TermHistory = std::vector<observe::TermHistoryEntry>;

enum class HistoryRelation {
  kUnknown,      // one of them is empty, or what is known of them does not overlap
  kSame,         // the same last primary
  kFirstOlder,   // the second one has later terms, and all of the first
  kSecondOlder,  // the reverse
  kDiverged,     // each has a term that the other one has not, or they disagree about one
};

struct HistoryComparison {
  HistoryRelation relation = HistoryRelation::kUnknown;
  // kDiverged: the first terms that differ are on timelines of one number, so pg_rewind may not see
  // it and only a new copy is sure to help. Also when both rows are one node's in one term: that is
  // a primary that lost WAL which a standby had (a host that lost power with fsync off, a copy from
  // before the promotion, promoted again) and wrote its row anew. A restart of the primary, a
  // repeated Promote and UndoDemote find the row and leave it; promoted again as a standby that
  // knows its old timeline, it takes the next one, and that rewinds. A row that somebody rewrote by
  // hand looks the same, and counts as another history: nothing proves that it is not.
  bool invisible_to_rewind = false;
  base::TimelineId timeline = 0;  // invisible_to_rewind: of both rows
  std::string explanation;        // kDiverged: for people
};

// Each is the last rows of a node's history (QueryTermHistory); they may begin at different terms.
HistoryComparison CompareTermHistories(std::span<const observe::TermHistoryEntry> first,
                                       std::span<const observe::TermHistoryEntry> second);

enum class SourceHistory {
  kWhole,  // of a primary: what it has not is not in its history
  kSoFar,  // of a standby: later terms may be on their way to it
};
// Whether a node with `own` may follow a source with `theirs` as it is. FAILED_PRECONDITION
// (HISTORY_DIVERGED; metadata: rewind, "possible" or "impossible") when it has a term that the
// source has not: its own WAL after that was never part of the source's. "impossible" is what the
// terms say, with the number of the two timelines as `timeline`: where those began at different
// places, pg_rewind sees it all the same.
absl::Status CheckMayFollow(std::span<const observe::TermHistoryEntry> own,
                            std::span<const observe::TermHistoryEntry> theirs, SourceHistory known);

// Whether `node_id` may become the primary of `term` with the history that it has replayed.
// FAILED_PRECONDITION (HISTORY_DIVERGED, metadata last_term: the term to begin is above it) when
// another node was the primary of this term, or anybody of a later one.
absl::Status CheckMayPromote(std::span<const observe::TermHistoryEntry> own, uint64_t term,
                             std::string_view node_id);

// One line for each row, for an operation's result; and back. Unreadable lines are left out.
std::string EncodeTermHistory(std::span<const observe::TermHistoryEntry> history);
TermHistory DecodeTermHistory(std::string_view text);

}  // namespace metal::pg
