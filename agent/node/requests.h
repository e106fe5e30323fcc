// What callers ask of a node and what they get back, in the domain's own terms. Plain values; field
// meanings and defaults are those of proto/metal/agent/v1. Durations and limits are checked by the
// node, not by the caller.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/units.h"
#include "agent/node/terms/term_record.h"
#include "agent/pg/synchronous.h"

namespace metal::node {

// ---- PostgreSQL ----

struct InitDataDirectoryRequest {
  std::string locale;              // empty: C.UTF-8
  std::string encoding;            // empty: UTF8
  std::string superuser_password;  // empty: only the unix socket; never journaled
  uint64_t wal_segment_bytes = 0;  // 0: 16 MiB
  std::map<std::string, std::string> settings;
};

struct StartPostgresRequest {
  absl::Duration no_progress_timeout = absl::Seconds(60);
};

enum class StopMode { kSmart, kFast, kImmediate };
std::string_view StopModeName(StopMode mode);  // "smart"

struct StopPostgresRequest {
  StopMode mode = StopMode::kFast;
  absl::Duration timeout = absl::Seconds(60);
  bool escalate = false;
};

struct RestartPostgresRequest {
  StopMode mode = StopMode::kFast;
  absl::Duration timeout = absl::Seconds(60);
};

struct ReloadConfigAnswer {
  absl::Time load_time;
  std::vector<std::string> pending_restart;
};

struct ApplyConfigRequest {
  std::map<std::string, std::string> settings;
  std::vector<std::string> reset;
  bool validate_only = false;
};
struct ConfigChange {
  std::string name, old_value, new_value;
  bool requires_restart = false;
};
struct ApplyConfigAnswer {
  std::vector<ConfigChange> changes;
  std::vector<std::string> pending_restart;
  bool reloaded = false;
};

struct ConfigSetting {
  std::string name, value, unit, source;
  bool pending_restart = false;
};
struct ConfigAnswer {
  std::vector<ConfigSetting> managed;
  std::vector<ConfigSetting> effective;  // empty unless asked for
};

// ---- Roles. Each request waits for its action at most `timeout`; the action itself goes on (see
// Node). ----

struct TimelineSwitch {
  base::TimelineId timeline = 0;  // the timeline that ended
  base::Lsn switch_lsn;
};
struct WalPosition {
  base::TimelineId timeline = 0;
  base::Lsn received, replayed;
  std::vector<TimelineSwitch> history;  // oldest first
};

struct BeginTermRequest {
  TermHolder holder;
  absl::Duration timeout = absl::Seconds(30);  // to replay what was received
};
struct BeginTermAnswer {
  WalPosition position;
  bool was_primary = false;
  bool postgres_down = false;
  // The last rows of metal.term_history that were replayed, oldest first; empty when it is down.
  std::vector<observe::TermHistoryEntry> term_history;
  // What metal.durability says here, as replayed; empty when it is down, or nothing is recorded.
  std::vector<observe::DurabilityRule> durability;
};

struct PromoteRequest {
  TermHolder holder;
  absl::Duration timeout = absl::Seconds(60);
  absl::Duration lease_ttl;  // zero: none
};
struct PromoteAnswer {
  base::TimelineId timeline = 0;
  base::Lsn lsn;
};

struct FenceRequest {
  TermHolder holder;
  std::string reason;
};
struct FenceAnswer {
  bool was_primary = false;
};

struct RenewLeaseRequest {
  TermHolder holder;
  absl::Duration ttl;
};
struct RenewLeaseAnswer {
  absl::Duration renew_within;  // then the server is stopped
};

struct DemoteRequest {
  TermHolder holder;
  bool prepare = false;                                   // only the checkpoint: nothing changes
  absl::Duration checkpoint_timeout = absl::Seconds(60);  // 0: no checkpoint before
  absl::Duration shutdown_timeout = absl::Seconds(60);    // for pg_control to say "shut down"
};

struct UndoDemoteRequest {
  TermHolder holder;
  absl::Duration timeout = absl::Seconds(60);
};

struct FollowPrimaryRequest {
  TermHolder holder;
  std::string host;  // as this node reaches the primary's Postgres; a directory: its unix socket
  int port = 5432;
  std::string slot;  // on the primary; empty: "metal_<node_id>"
  bool without_slot = false;
};
struct FollowPrimaryAnswer {
  std::string source;    // "host:port"
  bool checked = false;  // the source answered, is the same cluster, and this node has not diverged
  std::string unchecked_reason;  // why not
};

enum class ReplayAction { kPauseReplay, kResumeReplay, kStopReceiver, kStartReceiver };

struct SetSynchronousStandbysRequest {
  TermHolder holder;
  pg::SynchronousPolicy policy;
  std::string expected;  // the value as it is now, in any form that means the same; else refused
  absl::Duration timeout = absl::Seconds(30);  // for the new standbys to acknowledge
  bool accept_data_loss = false;  // although standbys of the old policy do not learn of the new one
  std::string reason;             // for people; told in the event
};
struct SetSynchronousStandbysAnswer {
  std::string before, after;  // as rendered
  bool acknowledged = false;  // the new standbys had all WAL; false on a standby
};

struct ReconcileSlotsRequest {
  TermHolder holder;
  std::vector<std::string> slots;  // all that there should be, of those that the agent manages
};
struct ReconcileSlotsAnswer {
  std::vector<std::string> created, dropped, kept;
  std::vector<std::string> foreign;  // made by no agent, or never wanted: left alone
  std::vector<std::string> active;   // should go, but somebody uses it: left for the next call
};

struct RewindRequest {
  TermHolder holder;
  std::string host;  // of the source's Postgres, as this node reaches it; a directory: its socket
  int port = 5432;
  std::string slot;  // on the source; empty: "metal_<node_id>". Used when it is there
  bool dry_run = false;
  // "host:port" of the transfer listener of a node to clone from when a rewind cannot be; empty:
  // then the node stays as it is.
  std::string clone_source;
  uint64_t clone_rate_limit = 0;  // bytes per second of that clone; 0: none
};

enum class LsnMode { kReceived, kFlushed, kReplayed };
struct WaitForLsnRequest {
  std::function<bool()> caller_left;  // as in RequestContext; may be empty
  base::Lsn lsn;
  base::TimelineId timeline = 0;  // 0: any
  LsnMode mode = LsnMode::kReplayed;
  absl::Duration timeout = absl::Seconds(30);
};
struct WaitForLsnAnswer {
  base::Lsn lsn;
  base::TimelineId timeline = 0;
};

// ---- Traffic ----

struct HoldTrafficRequest {
  TermHolder holder;
  absl::Duration deadline;  // 0: as configured
  absl::Duration drain_timeout = absl::Seconds(5);
  bool keep_undrained = false;
};
struct HoldTrafficAnswer {
  std::string host;  // where the door led
  int port = 0;
  absl::Time held_until;
  int64_t transactions = 0;
  absl::Duration took;
};

struct ReleaseTrafficRequest {
  TermHolder holder;
  std::string host;  // name, address, or directory of a unix socket
  int port = 0;
  absl::Duration timeout = absl::Seconds(5);
};
struct ReleaseTrafficAnswer {
  bool was_held = false;
  absl::Duration took;
};

// ---- Backups ----

struct CreateBackupRequest {
  std::string codec;         // "zstd", "lz4", "none"; empty: as configured
  std::optional<int> level;  // nullopt: as configured
  bool spread_checkpoint = false;
  std::map<std::string, std::string> annotations;
  uint64_t rate_limit = 0;         // bytes per second; 0: none
  bool ignore_free_space = false;  // start although it may not fit
};

struct VerifyBackupRequest {
  std::string name;  // "backups/<id>" or "backups/latest"
  bool rehearse = false;
  std::string scratch_directory;  // empty: beside the state directory
};

enum class RecoveryTarget { kLatest, kImmediate, kStandby };
struct RestoreBackupRequest {
  TermHolder holder;  // term 0: none; required for the node's own data directory
  std::string name;
  std::string target_directory;                           // empty: the node's data directory
  std::map<std::string, std::string> tablespace_mapping;  // new path by OID
  RecoveryTarget recovery_target = RecoveryTarget::kLatest;
  int port = 0;  // 0: as the source
  bool validate_only = false;
};

// ---- Clone ----

struct CloneRequest {
  TermHolder holder;
  std::string source;        // "host:port" of the source agent's transfer listener
  std::string primary_host;  // of the PostgreSQL to follow; a directory: its unix socket
  int primary_port = 5432;
  bool replace = false;  // a data directory of the same cluster may go
  std::map<std::string, std::string> tablespace_mapping;  // new path by OID
  uint64_t rate_limit = 0;                                // bytes per second; 0: none
  std::string codec = "none";                             // none, lz4, zstd
};

// ---- Storage ----

struct StorageProbeRequest {
  std::string role;  // "data", "wal", "tablespace:<oid>", "repository"; empty: data
  int reads = 0;     // 0: 1000; at most 100000
  int writes = 0;    // 0: 200; at most 10000
};

// ---- What this build and host can do ----

struct Capabilities {
  std::string agent_version;
  std::string postgres_version;  // empty when the programs are missing
  std::vector<std::string> io_engines, codecs;
  std::string io_engine, io_engine_reason;      // what is in use
  std::map<std::string, std::string> features;  // "supported" or why not
};

}  // namespace metal::node
