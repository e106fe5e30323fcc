// The seam between procedures and nodes: every call that a procedure makes. agent_calls.cc makes
// them over gRPC; tests have a shard in memory that can lose its operator at any call.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "tools/metalctl/shard/node_view.h"
#include "tools/metalctl/shard/wal_position.h"

namespace metal::shard {

// Under which term a change is ordered, and by whom.
struct TermHolder {
  uint64_t term = 0;
  std::string orchestrator;
};

struct TermAnswer {
  WalPosition position;
  bool was_primary = false;
  // The server did not run: the term is stored, and where its WAL ends is not known.
  bool postgres_down = false;
};

struct WalPoint {
  base::TimelineId timeline = 0;
  base::Lsn lsn;
};

struct InitOptions {
  std::map<std::string, std::string> settings;
  std::string password;  // of the superuser; empty: none
};

struct CloneSource {
  HostPort transfer;                  // of the agent that is copied from
  HostPort primary;                   // PostgreSQL that the copy follows
  bool replace = false;               // what is there may go
  uint64_t bytes_per_second_max = 0;  // 0: no limit
};

struct SynchronousChange {
  SyncPolicy policy;
  std::vector<std::string> standbys;
  std::string expected;                         // synchronous_standby_names as it is now
  bool accept_data_loss = false;                // ask for less although standbys do not learn of it
  std::string reason = {};                      // for people; told in the primary's event
  absl::Duration patience = absl::Seconds(30);  // for the standbys to acknowledge
};

enum class FollowBy { kSlot, kNoSlot };

// One node. Every change is safe to repeat, and goes on when the caller is gone. A call that finds
// the node busy with another action waits for that, within its patience. Errors: as the agent said
// them, with its reason (base::GetReason); UNAVAILABLE or DEADLINE_EXCEEDED when no answer came:
// what was asked for may then still happen. Threading: thread-safe.
class NodeCalls {
 public:
  virtual ~NodeCalls() = default;

  virtual absl::StatusOr<NodeView> GetStatus(absl::Duration patience) = 0;
  virtual absl::StatusOr<TermAnswer> BeginTerm(const TermHolder& holder,
                                               absl::Duration patience) = 0;
  virtual absl::StatusOr<WalPoint> Promote(const TermHolder& holder) = 0;
  // Only the checkpoint that makes a demotion short.
  virtual absl::Status PrepareDemote(const TermHolder& holder) = 0;
  // Answers the end of the shutdown checkpoint; the node then comes up as a standby by itself.
  virtual absl::StatusOr<WalPoint> Demote(const TermHolder& holder) = 0;
  virtual absl::Status UndoDemote(const TermHolder& holder) = 0;
  // Through its slot there, which must exist for that; a standby has none for another.
  virtual absl::Status FollowPrimary(const TermHolder& holder, const HostPort& source,
                                     FollowBy by) = 0;
  virtual absl::Status WaitForLsn(const WalPoint& point, absl::Duration patience) = 0;
  // Where its flushed WAL ends at this moment, asked of the server: a status may be a second old.
  virtual absl::StatusOr<WalPoint> EndOfWal() = 0;
  virtual absl::Status SetSynchronousStandbys(const TermHolder& holder,
                                              const SynchronousChange& change) = 0;
  virtual absl::Status ReconcileSlots(const TermHolder& holder,
                                      const std::vector<std::string>& slots) = 0;
  virtual absl::Status StartPostgres() = 0;
  // Makes a node whose WAL left the primary's history its standby; what only it had is gone.
  virtual absl::Status Rewind(const TermHolder& holder, const HostPort& primary) = 0;
  // What Rewind would say, without changing anything. OK also when there is nothing to rewind and
  // the primary has the WAL that the node needs next; WAL_MISSING when it has removed that.
  virtual absl::Status TryRewind(const TermHolder& holder, const HostPort& primary) = 0;
  virtual absl::Status InitDataDirectory(const InitOptions& options) = 0;
  // Makes the node a copy that streams. REQUIRES: it has stored the holder's term.
  virtual absl::Status Clone(const TermHolder& holder, const CloneSource& source) = 0;
  // Lifts its fence, whatever that was for.
  virtual absl::Status Unfence(const TermHolder& holder) = 0;
  // Holds the traffic of this host's door; returns when no transaction runs behind it. It opens by
  // itself after a while.
  virtual absl::Status HoldTraffic(const TermHolder& holder) = 0;
  // Leads the door to `primary` and opens it.
  virtual absl::Status ReleaseTraffic(const TermHolder& holder, const HostPort& primary) = 0;
};

// A call to one node, to be made while others are made to other nodes.
struct NodeCall {
  size_t node = 0;
  std::function<void()> run;
};

// When calls at once need not all be waited for.
struct Enough {
  // Of those that have ended, by their place in the list; what they wrote may be read.
  std::function<bool(const std::vector<bool>& ended)> test = nullptr;  // null: all must end
  absl::Duration grace;  // for the others, from when it is enough
};

// All nodes of a shard, in the order of its config.
class ShardCalls {
 public:
  virtual ~ShardCalls() = default;
  virtual NodeCalls& node(size_t index) = 0;
  // Makes all calls, at the same time where it can; returns when none runs any more. A call that is
  // not waited for fails with CANCELLED here; its node goes on with it.
  virtual void AtOnce(const std::vector<NodeCall>& calls, const Enough& enough) = 0;
  virtual base::Clock& clock() = 0;
};

}  // namespace metal::shard
