// The published status of this node: monitors write their section, readers take an immutable
// snapshot. The status path reads only this: no disk, no SQL, no locks that a monitor holds while
// it works. Threading: Update* from any thread (short critical section, copy-on-write); Get and
// Wait from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/units.h"
#include "agent/observe/event_log.h"
#include "agent/observe/histogram.h"

namespace metal::observe {

enum class Role { kUnknown, kPrimary, kStandby };
enum class PostgresState {
  kUnknown,
  kNoDataDirectory,
  kStopped,
  kStarting,      // postmaster alive, not accepting yet
  kRunning,       // accepting connections
  kUnresponsive,  // postmaster alive, queries time out
  kStopping,
  kCrashed,     // found dead without a stop request; will be restarted
  kQuarantined  // restarted too often; left alone
};

// Each section carries the time of its last good observation: a reader sees what is stale.
struct SectionTime {
  absl::Time captured_at = absl::InfinitePast();
  base::MonotonicTime monotonic;
};

// The lease of a primary.
struct LeaseSection {
  absl::Duration ttl;  // zero: none
  uint64_t term = 0;
  bool expired = false;
  base::MonotonicTime deadline;  // by Clock::Monotonic, as of the last renewal
};

struct NodeSection {
  std::string node_id, cluster_id, hostname, agent_version, os_user;
  absl::Time agent_start;
  std::string io_engine, io_engine_reason;  // what was chosen and why
  uint64_t term = 0;
  std::string term_orchestrator;
  bool fenced = false;
  std::string fence_reason;
  uint64_t fence_term = 0;
  Role role_wanted = Role::kUnknown;  // from the stored term
  std::string grpc_address;           // bound TCP address, empty when none
  LeaseSection lease;
};

struct PostgresSection {
  SectionTime time;
  PostgresState state = PostgresState::kUnknown;
  std::string state_reason;
  int pid = 0;
  absl::Time start_time = absl::InfinitePast();
  int version_num = 0;  // server_version_num; 0 unknown
  std::string version;  // "15.18"
  std::string data_directory, socket_dir;
  int port = 0;
  uint64_t system_identifier = 0;
  Role role_observed = Role::kUnknown;
  bool in_recovery = false;
  base::TimelineId timeline = 0;
  base::Lsn current_lsn, flush_lsn, insert_lsn;  // primary
  bool data_checksums = false;
  int64_t checksum_failures = 0;
  int connections = 0, max_connections = 0;
  int restarts = 0;  // crash restarts in the current window
  bool settings_pending_restart = false;
  std::string synchronous_standby_names;  // in force
  // As read from pg_control at the last change of state.
  std::string control_state;
  base::Lsn redo_lsn, min_recovery_lsn;
  // Start-up progress while state is kStarting.
  std::string start_progress;
};

// The row of metal.heartbeat: written here by a primary, read here by a standby.
struct Heartbeat {
  uint64_t term = 0;
  std::string node_id;                     // of the primary that wrote it
  absl::Time time = absl::InfinitePast();  // by that primary's clock
  base::Lsn lsn;                           // of that primary, just before
};

struct StandbySection {
  SectionTime time;
  bool present = false;        // in recovery
  std::string receiver_state;  // pg_stat_wal_receiver.status; empty: no receiver
  std::string sender_host;
  int sender_port = 0;
  std::string slot_name;
  std::string source, source_slot;  // as configured: "host:port", whether it answers or not
  base::Lsn received_lsn, flushed_lsn, replayed_lsn, latest_end_lsn;
  base::TimelineId received_timeline = 0;
  std::optional<uint64_t>
      lag_bytes;  // nullopt: unknown (link is dead and the primary's LSN is not known)
  std::optional<absl::Duration> lag_seconds;  // nullopt: unknown
  std::string
      lag_source;  // how seconds were derived: "caught_up", "replay_timestamp", "link_dead", ...
  absl::Time last_message = absl::InfinitePast();
  absl::Time last_replayed_commit = absl::InfinitePast();
  bool replay_paused = false;
  std::string pause_state;
  std::optional<Heartbeat> heartbeat;  // the last one replayed
};

// A row of metal.term_history: a term that had a primary.
struct TermHistoryEntry {
  uint64_t term = 0;
  base::TimelineId timeline = 0;
  base::Lsn start_lsn;  // where that primary was when it wrote the row, right after its promotion
  absl::Time time = absl::InfinitePast();  // by that primary's clock
  std::string node_id, orchestrator_id;
};
// What metal.durability says: an acknowledged commit is on `copies` of `members` at least. The
// primary that wrote it is one of them.
struct DurabilityRule {
  int copies = 0;
  std::vector<std::string> members;
  bool operator==(const DurabilityRule&) const = default;
};

struct TermHistorySection {
  SectionTime time;
  std::vector<TermHistoryEntry> entries;   // oldest first, the last 16
  std::vector<DurabilityRule> durability;  // all that hold at the moment; empty: none is recorded
};

struct FollowerSection {
  std::string application_name, client_address, state, sync_state;
  int pid = 0;
  base::Lsn sent_lsn, write_lsn, flush_lsn, replay_lsn;
  uint64_t lag_bytes = 0;                     // current − replay
  std::optional<absl::Duration> lag_seconds;  // replay_lag; 0 when caught up; nullopt unknown
  absl::Time reply_time = absl::InfinitePast();
};

struct FollowersSection {
  SectionTime time;
  std::vector<FollowerSection> followers;
};

struct ArchiveSection {
  SectionTime time;
  bool enabled = false;
  std::string mode;              // archive_mode
  std::string command, library;  // archive_command, and archive_library from PostgreSQL 15
  uint64_t ready_segments = 0;   // *.ready in archive_status
  uint64_t backlog_bytes = 0;
  std::optional<absl::Duration> oldest_ready_age;
  std::string last_archived_wal, last_failed_wal;
  absl::Time last_archived = absl::InfinitePast(), last_failed = absl::InfinitePast();
  int64_t archived_count = 0, failed_count = 0;
  std::string last_error;
};

struct ProbeSection {
  std::string role;  // "data", "wal", "tablespace:16385", "repository"
  std::string path;
  std::string state;  // "healthy", "slow", "stalled", "faulted", "unsupported", "unknown"
  std::string state_reason;
  absl::Time state_since = absl::InfinitePast();
  std::optional<absl::Duration> oldest_outstanding;
  LatencySummary read, write;
  uint64_t read_errors = 0, write_errors = 0, late = 0;
  std::string last_error;
};

struct SmartSection {
  SectionTime time;  // of the log page; never when it was not read
  bool supported = false;
  std::string unsupported_reason;
  int critical_warning = 0;
  std::optional<int> temperature_celsius;
  int available_spare_percent = 0, available_spare_threshold = 0, percentage_used = 0;
  uint64_t media_errors = 0, error_log_entries = 0, power_on_hours = 0, unsafe_shutdowns = 0;
  uint64_t bytes_read = 0, bytes_written = 0;
};

// Whether a drive has become slow, by its own past and by its peers.
struct SlownessSection {
  std::string state;      // "normal", "suspected", "slow"
  double factor = 1;      // how many times slower than expected
  double confidence = 0;  // 0 to 1
  bool learning = true;   // too little history yet to judge
  // ln(latency ÷ what is expected at this load), smoothed; unset when that load is not known.
  std::optional<double> median_excess, p99_excess;
};

// What a disk did in the last second.
struct ActivitySection {
  double read_bytes_per_second = 0, write_bytes_per_second = 0;
  double reads_per_second = 0, writes_per_second = 0, flushes_per_second = 0;
  std::optional<absl::Duration> read_latency, write_latency, flush_latency;  // means
  double busy = 0;  // share of the time with something in flight
  uint64_t in_flight = 0;
};

// How full a file system is, and for how long its room will last.
struct SpaceSection {
  double used_percent = 0;                    // as df counts
  std::optional<double> inodes_used_percent;  // nullopt: it has no limit of them
  int level_percent = 0;  // highest of 60, 75, 85, 90, 95 that was reached, of bytes or inodes
  uint64_t least_free_bytes = 0;  // below it counts as full
  bool tight = false;             // it does, until half as much more is free
  bool exhausted = false;         // hardly a WAL file fits any more
  // Steady growth in bytes per second during the last hours and days; nullopt: not known yet.
  std::optional<double> recent_growth, long_growth;
  // Until nothing is free at that growth; nullopt: not known, or it does not grow.
  std::optional<absl::Duration> full_in_recent, full_in_long;
};

struct DiskSection {
  SectionTime time;                // of the probes' state
  std::string device;              // "nvme0n1"
  std::vector<std::string> roles;  // what lives here
  std::vector<std::string>
      stack;  // from the filesystem's device down to the disk: "/dev/loop0", "vda"
  std::string mount_point, filesystem;
  std::string model, serial, wwid, firmware, transport, scheduler, write_cache;
  uint64_t size_bytes = 0, logical_block_size = 0, physical_block_size = 0;
  uint64_t filesystem_size_bytes = 0, filesystem_free_bytes = 0;
  SectionTime filesystem_time;  // of these two
  std::optional<SpaceSection> space;
  bool rotational = false;
  SmartSection smart;
  std::optional<SlownessSection> slowness;
  std::optional<ActivitySection> activity;
  std::vector<ProbeSection> probes;
};

struct BackupSummary {
  std::string name;   // "20261122T021500Z-F"
  std::string state;  // "complete", "suspect", "damaged"
  absl::Time start, stop;
  uint64_t bytes = 0, stored_bytes = 0;
  double bytes_per_second = 0;
  std::string codec, io_engine;
  base::Lsn start_lsn, stop_lsn;
  base::TimelineId timeline = 0;
};
struct BackupsSection {
  SectionTime time;
  std::string repository;
  std::string error;  // why the repository cannot be listed
  uint64_t count = 0;
  std::vector<BackupSummary> latest;  // newest first, at most 5
};

enum class GateState {
  kOff,   // not configured
  kOpen,  // leads to host:port
  kHeld,  // nothing new passes; clients wait
  kDown   // pgbouncer does not run, or does not do as told
};
enum class ReadOnlyDoorState { kNone, kOpen, kClosed, kDown };

struct ReadOnlyDoorSection {
  ReadOnlyDoorState state = ReadOnlyDoorState::kNone;
  std::string reason;  // why it is closed or down
  std::string listen;
  int pid = 0;
  int64_t clients = 0, waiting = 0;
};

struct GateSection {
  SectionTime time;
  GateState state = GateState::kOff;
  std::string reason;  // why it is down
  std::string listen;
  std::string host;  // where it leads; while held: where it led, and leads when the hold runs out
  int port = 0;
  absl::Time held_since = absl::InfinitePast(), held_until = absl::InfinitePast();
  uint64_t term = 0;         // of the last order
  std::string orchestrator;  // who gave it
  int pid = 0, restarts = 0;
  int64_t clients = 0, waiting = 0, servers = 0;
  int64_t transactions = 0;  // while held: those that still run behind the door
  ReadOnlyDoorSection read_only;
};

struct OperationSection {
  SectionTime time;
  bool running = false;
  std::string name, kind, phase;
  absl::Time started = absl::InfinitePast();
  uint64_t done_bytes = 0, total_bytes = 0;
  double bytes_per_second = 0;
  absl::Duration eta = absl::InfiniteDuration();
};

// What one witness of a disk's fault saw last.
struct FaultEvidence {
  std::string witness;  // "probe", "kernel_log", …
  std::string text;
  std::string kernel_line;    // as the kernel wrote it; empty without one
  std::string probe_outcome;  // "unanswered", "late", …; empty where the witness is no probe
  std::optional<absl::Duration> outstanding;  // of a probe that is unanswered
  std::optional<int> error_number;
  std::optional<uint32_t> nvme_status_type, nvme_status_code;
  std::optional<uint64_t> sector;  // of 512 bytes
  std::optional<int64_t> delta;    // growth of a counter
  absl::Time time;
};

// That an operator knows of a fault, and that it is over or understood.
struct FaultAcknowledgement {
  std::string caller, reason;
  absl::Time time;
};

// A fault of a disk, weighed by the fault table.
struct DiskFaultDetail {
  std::string device, serial, path;  // kernel name, serial number, /dev/…; empty while unknown
  std::vector<std::string> roles;    // what lies there
  bool confirmed = false;            // false: suspected
  bool fatal = false;                // the disk no longer keeps what it is given
  std::string reaction;              // "observe", "drain", "demote": what is wanted once confirmed
  absl::Time last_seen;
  std::vector<FaultEvidence> evidence;
  std::vector<std::string> actions;                    // what the agent did, oldest first
  std::optional<FaultAcknowledgement> acknowledged{};  // counts in no decision then
};

struct Fault {
  std::string fault_class;  // "stalled", "corruption", "postgres_quarantined", …
  std::string subject;      // device, path
  Severity severity = Severity::kWarning;
  std::string message;
  absl::Time since;
  std::shared_ptr<const DiskFaultDetail> disk{};  // null: not of a disk
};

// Space kept back on a file system.
struct ReserveSection {
  std::string role;  // "data", "wal"
  std::string path;
  uint64_t size_bytes = 0;  // 0: none is kept back now
  std::string reason;       // why
};

// What the node does about space.
struct RoomSection {
  bool read_only = false;  // default_transaction_read_only is on until there is room
  std::string read_only_reason;
  std::vector<ReserveSection> reserves;
};

// Shares of the time in which processes of the host wait, 0 to 1.
struct Pressure {
  double some_10s = 0, some_60s = 0;  // at least one process waited
  double full_10s = 0, full_60s = 0;  // all that were not idle did
};
struct PressureSection {
  SectionTime time;
  std::optional<Pressure> io, memory, cpu;  // unset where the kernel does not tell
};

struct NodeStatus {
  // Grows with every change, also across restarts of the agent: it starts from the clock's
  // milliseconds. Only a clock that was set back lowers it.
  uint64_t revision = 0;
  absl::Time captured_at;
  base::MonotonicTime monotonic;
  NodeSection node;
  PostgresSection postgres;
  StandbySection standby;
  TermHistorySection term_history;
  FollowersSection followers;
  ArchiveSection archive;
  std::vector<DiskSection> disks;
  RoomSection room;
  PressureSection pressure;
  BackupsSection backups;
  GateSection gate;
  OperationSection operation;
  std::map<std::string, Fault> faults;  // key: class + "/" + subject
};

class StatusBoard {
 public:
  explicit StatusBoard(base::Clock& clock);
  std::shared_ptr<const NodeStatus> Get();
  // Changes a private copy and publishes it with the next revision. `change` must not block.
  void Update(const std::function<void(NodeStatus&)>& change);
  // The newest snapshot with revision > `revision`, waiting up to `timeout`; the current one on
  // timeout.
  std::shared_ptr<const NodeStatus> WaitAfter(uint64_t revision, absl::Duration timeout);

  void RaiseFault(Fault fault);  // keeps `since` of a fault that is already there
  void ClearFault(const std::string& fault_class, const std::string& subject);

 private:
  base::Clock& clock_;
  base::Mutex mutex_;
  base::CondVar changed_;
  std::shared_ptr<const NodeStatus> current_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::observe
