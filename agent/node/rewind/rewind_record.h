// What is known of a rewind outside of the data directory: <state_dir>/rewind/record, beside the
// files that pg::KeepForRewind put there. It says how far the rewind came, and afterwards which
// WAL the node must have replayed before it counts as a synchronous standby again.
// Threading: functions; they block on the state directory's disk.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/units.h"
#include "agent/node/requests.h"
#include "agent/node/rewind/ancestry.h"
#include "agent/observe/status_board.h"

namespace metal::node {

enum class RewindStage {
  kRunning,  // pg_rewind may have changed the directory
  kRewound,  // it has ended well: the rest is settings and the start
  kStarted,  // the directory is whole; only the floor may still be ahead
};
std::string_view RewindStageName(RewindStage stage);  // "running"

// A row of the source's metal.term_history: what tells two histories apart that went over to a
// timeline of one number at one place.
struct SourceTerm {
  uint64_t term = 0;
  std::string node_id;
  base::Lsn start_lsn;
};

struct RewindRecord {
  RewindStage stage = RewindStage::kRunning;
  std::string source;  // "host:port"
  uint64_t system_identifier = 0;
  base::TimelineId source_timeline = 0;
  // Which timelines led to it, and the last term that the source had. nullopt: an older agent wrote
  // the record; for the term also a source that kept none.
  std::optional<std::vector<TimelineSwitch>> source_history;
  std::optional<SourceTerm> source_term;
  // Where this node's history left the source's: what it had beyond that is not the source's, also
  // on a timeline of the same number. nullopt: an older agent wrote the record.
  std::optional<Fork> fork;
  bool repeatable = false;  // the WAL that pg_rewind reads is kept
  // The end of what this node had of the history that it shares with the source: it may have
  // acknowledged all of that.
  base::Lsn floor;
};

// A source as it is found.
struct SourceState {
  base::TimelineId timeline = 0;
  std::span<const TimelineSwitch> history;
  std::span<const observe::TermHistoryEntry> terms;  // the last ones, oldest first
};
// How the source's history differs from the one that the record names, for people; empty when it is
// the same, or a later state of it, as far as the record tells.
std::string DifferenceFrom(const RewindRecord& record, const SourceState& source);

// <state_dir>/rewind.
std::string RewindDirectory(const std::string& state_dir);

// NOT_FOUND when there is none; DATA_LOSS when it cannot be read.
absl::StatusOr<RewindRecord> LoadRewindRecord(const std::string& state_dir);
// Durable. REQUIRES: RewindDirectory exists.
absl::Status StoreRewindRecord(const std::string& state_dir, const RewindRecord& record);
// Removes the whole directory; the record first, so that what is left never counts.
absl::Status RemoveRewindRecord(const std::string& state_dir);

}  // namespace metal::node
