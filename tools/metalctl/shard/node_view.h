// What one node of a shard said about itself, or that it did not answer. Plain values: what the
// analysis and the procedures decide by. Threading: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/units.h"
#include "metal/agent/v1/status.pb.h"
#include "tools/metalctl/shard/shard_config.h"
#include "tools/metalctl/shard/wal_position.h"

namespace metal::shard {

enum class ServerState { kUnknown, kEmpty, kStopped, kStarting, kRunning, kStuck, kDown };
// kUnknown: not seen yet; kEmpty: no data directory; kStuck: does not answer; kDown: crashed,
// quarantined or stopping.
std::string_view ServerStateName(ServerState state);  // "no data", "running", …

enum class NodeRole { kUnknown, kPrimary, kStandby };

struct Follower {
  std::string name, state, sync_state;  // of pg_stat_replication
  base::Lsn flushed;
};

// What a node asks for because of a confirmed fault of its disk.
enum class FaultWish { kNothing, kReparent, kFailover };

// One that an operator has acknowledged is none of the three.
struct NodeFault {
  std::string fault_class, subject, message;
  bool severe = false;      // error or critical
  bool fatal_disk = false;  // confirmed, of a database's disk that no longer keeps what it is given
  FaultWish wanted = FaultWish::kNothing;
};

// How much slower than expected a disk answers, as the agent has it for its peers.
struct DiskExcess {
  std::string role;  // what lies there: "data", "wal", …
  double median = 0, p99 = 0;
};

struct NodeView {
  std::string id;         // of shard.toml
  bool answered = false;  // all below means nothing otherwise
  std::string no_answer;  // why it did not

  // Identity.
  std::string node_id, cluster_id;
  uint64_t term = 0;
  std::string orchestrator;
  bool fenced = false;
  std::string fence_reason;
  uint64_t fence_term = 0;               // under which it was set
  NodeRole wanted = NodeRole::kUnknown;  // the role that the stored term gives it
  // The last term that had a primary, as the database notes it; 0: not known. Above the stored one
  // where the data came from elsewhere, or the agent's state was lost.
  uint64_t last_led_term = 0;

  // PostgreSQL.
  ServerState server = ServerState::kUnknown;
  std::string server_reason;
  NodeRole role = NodeRole::kUnknown;  // that it has; kUnknown while the server is not running
  int version = 0;                     // server_version_num
  uint64_t system_id = 0;
  base::TimelineId timeline = 0;
  absl::Duration seen;  // age of these facts
  // Last WAL here: a primary's flushed LSN, else the last received one (or replayed, when that is
  // more: WAL of an archive).
  base::Lsn received, replayed;

  // As a standby.
  std::string receiver_state, sender_host, slot;
  int sender_port = 0;
  std::optional<int64_t> lag_bytes;
  std::optional<absl::Duration> lag;
  bool replay_paused = false;

  // As a sender of WAL.
  std::vector<Follower> followers;
  bool followers_seen = false;
  std::string synchronous_standbys;        // synchronous_standby_names in force
  std::vector<DurabilityRule> durability;  // as recorded in the WAL that it has; empty: it is not

  // The door for clients: open, held or down; empty when there is none. Where it leads.
  std::string gate, gate_reason;
  HostPort gate_target;

  // The rest.
  std::string disk =
      "-";  // the worst verdict of its disks' probes: healthy, slow, stalled, faulted
  std::optional<absl::Duration> backup_age;  // of the newest complete one
  std::string archive_error;
  std::string operation;  // kind of the one that runs
  std::vector<NodeFault> faults;
  std::vector<DiskExcess> disk_excess;

  bool running() const { return answered && server == ServerState::kRunning; }
  bool is_primary() const { return running() && role == NodeRole::kPrimary; }
  bool is_standby() const { return running() && role == NodeRole::kStandby; }
  // Read-write by order of the stored term, as the agent's role table has it.
  bool is_ordered_primary() const {
    return is_primary() && wanted == NodeRole::kPrimary && !fenced;
  }
  // As its probes see it at this moment; one witness alone.
  bool disk_is_sick() const { return disk == "stalled" || disk == "faulted"; }
  // The worst confirmed fault of its database's disks, for which the node is to serve no longer, or
  // to count as no copy; null when there is none.
  const NodeFault* condemned_by() const;
  // It fenced itself because of its disk.
  bool fenced_by_disk() const;
  // One of the two: whatever it acknowledges proves little.
  bool is_condemned() const { return condemned_by() != nullptr || fenced_by_disk(); }
  // Confirmed: its disk may have lost what it was given.
  bool has_fatal_disk() const;
  // "write_error nvme0n1", "fenced: disk: …".
  std::string CondemnedFor() const;
};

// `id`: of shard.toml.
NodeView ViewOf(std::string id, const metal::agent::v1::NodeStatus& status);
NodeView UnreachableView(std::string id, std::string why);

}  // namespace metal::shard
