// What is known of a rewind outside of the data directory: <state_dir>/rewind/record, beside the
// files that pg::KeepForRewind put there. It says how far the rewind came, and afterwards which
// WAL the node must have replayed before it counts as a synchronous standby again.
// Threading: functions; they block on the state directory's disk.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::node {

enum class RewindStage {
  kRunning,  // pg_rewind may have changed the directory
  kRewound,  // it has ended well: the rest is settings and the start
  kStarted,  // the directory is whole; only the floor may still be ahead
};
std::string_view RewindStageName(RewindStage stage);  // "running"

struct RewindRecord {
  RewindStage stage = RewindStage::kRunning;
  std::string source;  // "host:port"
  uint64_t system_identifier = 0;
  base::TimelineId source_timeline = 0;
  bool repeatable = false;  // the WAL that pg_rewind reads is kept
  // The end of what this node had of the history that it shares with the source: it may have
  // acknowledged all of that.
  base::Lsn floor;
};

// <state_dir>/rewind.
std::string RewindDirectory(const std::string& state_dir);

// NOT_FOUND when there is none; DATA_LOSS when it cannot be read.
absl::StatusOr<RewindRecord> LoadRewindRecord(const std::string& state_dir);
// Durable. REQUIRES: RewindDirectory exists.
absl::Status StoreRewindRecord(const std::string& state_dir, const RewindRecord& record);
// Removes the whole directory; the record first, so that what is left never counts.
absl::Status RemoveRewindRecord(const std::string& state_dir);

}  // namespace metal::node
