// One function for each command. Each prints its result (or its error) and gives the exit code.
// cli.cc turns arguments into these calls. Threading: one thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tools/metalctl/client.h"
#include "tools/metalctl/follow.h"
#include "tools/metalctl/terminal.h"

namespace metal::ctl {

// ---- status.cc ----
int ShowStatus(const Client& client);
int WatchStatus(const Client& client);
int ShowCapabilities(const Client& client);

// ---- status_text.cc ----
// The status as text for people: faults first, ages by the node's own clock. `options`: states that
// want attention stand out in colours, and tables leave out what does not fit.
std::string StatusText(const v1::NodeStatus& status, const TextOptions& options);

// ---- events.cc ----
struct EventsOptions {
  bool follow = false;
  int limit = 50;
  uint64_t after_id = 0;
  std::string type_prefix;
  std::string min_severity;  // info, warning, error, critical
};
int ShowEvents(const Client& client, const EventsOptions& options);

// ---- diag_command.cc ----
struct DiagOptions {
  std::string output;     // file, or "-": standard output; empty: named after the node and the time
  absl::Duration window;  // zero: all there is
};
int CaptureDiagnostics(const Client& client, const DiagOptions& options);

// ---- operation_commands.cc ----
struct OperationListOptions {
  bool running_only = false;
  int limit = 20;
};
int ListOperations(const Client& client, const OperationListOptions& options);
int ShowOperation(const Client& client, const std::string& name);
int WatchOperationCommand(const Client& client, const std::string& name);
struct OperationWaitOptions {
  std::string name;
  absl::Duration timeout = absl::Seconds(30);
};
int WaitForOperation(const Client& client, const OperationWaitOptions& options);
int CancelOperation(const Client& client, const std::string& name);

// ---- postgres_commands.cc ----
struct InitOptions {
  std::string locale, encoding, password_file;
  std::map<std::string, std::string> settings;
  int64_t wal_segment_bytes = 0;
  FollowOptions follow;
};
int InitPostgres(const Client& client, const InitOptions& options);
struct StartOptions {
  absl::Duration no_progress_timeout = absl::Seconds(60);
  FollowOptions follow;
};
int StartPostgres(const Client& client, const StartOptions& options);
struct StopOptions {
  std::string mode = "fast";  // smart, fast, immediate
  absl::Duration timeout = absl::Seconds(60);
  bool escalate = false;
  FollowOptions follow;
};
int StopPostgres(const Client& client, const StopOptions& options);
int RestartPostgres(const Client& client, const StopOptions& options);
int ReloadPostgres(const Client& client);
int ShowConfig(const Client& client, bool effective);
struct SetConfigOptions {
  std::map<std::string, std::string> settings;
  std::vector<std::string> reset;
  bool dry_run = false;
};
int SetConfig(const Client& client, const SetConfigOptions& options);
int ShowControlData(const Client& client);

// ---- role_commands.cc ----
struct TermOptions {
  uint64_t term = 0;
  std::string orchestrator = "metalctl";
  absl::Duration timeout = absl::Seconds(60);
  std::string reason;        // of a fence
  absl::Duration lease_ttl;  // of a primary; zero: none
};
int BeginTerm(const Client& client, const TermOptions& options);
int Promote(const Client& client, const TermOptions& options);
int Fence(const Client& client, const TermOptions& options);
int Unfence(const Client& client, const TermOptions& options);
int RenewLease(const Client& client, const TermOptions& options);
struct WaitLsnOptions {
  std::string lsn;
  uint32_t timeline = 0;
  std::string mode = "replayed";  // received, flushed, replayed
  absl::Duration timeout = absl::Seconds(30);
};
int WaitLsn(const Client& client, const WaitLsnOptions& options);

// ---- replication_commands.cc ----
struct DemoteOptions {
  TermOptions term;
  bool prepare = false;
  FollowOptions follow;
};
int Demote(const Client& client, const DemoteOptions& options);
int UndoDemote(const Client& client, const TermOptions& options);
struct FollowPrimaryOptions {
  TermOptions term;
  std::string primary;  // "host:port", or "/directory:port"
  std::string slot;
  bool without_slot = false;
};
int FollowPrimary(const Client& client, const FollowPrimaryOptions& options);
struct SynchronousOptions {
  TermOptions term;
  std::vector<std::string> standbys;  // empty: no commit waits
  int count = 1;
  bool first = false;
  std::optional<std::string> expected;  // nullopt: what the node's status says now
  bool accept_data_loss = false;        // although standbys of the old policy do not learn of it
};
int SetSynchronous(const Client& client, const SynchronousOptions& options);
struct SlotsOptions {
  TermOptions term;
  std::vector<std::string> slots;
};
int ReconcileSlots(const Client& client, const SlotsOptions& options);
int PauseReplay(const Client& client);
int ResumeReplay(const Client& client);
int StopReceiver(const Client& client);
int StartReceiver(const Client& client);
// ---- clone_commands.cc ----
struct CloneOptions {
  std::string source;   // HOST:PORT of the source agent's transfer listener
  std::string primary;  // HOST:PORT of the PostgreSQL to follow
  uint64_t term = 0;
  std::string orchestrator = "metalctl";
  bool replace = false;
  std::map<std::string, std::string> tablespaces;
  uint64_t rate_limit = 0;     // bytes per second; 0: none
  std::string codec = "none";  // none, lz4, zstd
  FollowOptions follow;
};
int CloneNode(const Client& client, const CloneOptions& options);

// ---- gate_commands.cc ----
struct HoldOptions {
  TermOptions term;  // its timeout: for transactions to end
  std::optional<absl::Duration> deadline;
  bool keep_undrained = false;
};
int HoldTraffic(const Client& client, const HoldOptions& options);
struct ReleaseOptions {
  TermOptions term;
  std::string host;
  int port = 5432;
};
int ReleaseTraffic(const Client& client, const ReleaseOptions& options);
int ShowGate(const Client& client);
// One line: "open to db-2:5432, 12 clients (0 wait)". `now` is the node's clock.
std::string GateLine(const v1::GateStatus& gate, const google::protobuf::Timestamp& now,
                     bool colors);
std::string ReadOnlyDoorLine(const v1::ReadOnlyDoorStatus& door, bool colors);

// ---- rewind_commands.cc ----
struct RewindOptions {
  TermOptions term;
  std::string from;  // "host:port", or "/directory:port"
  std::string slot;
  bool dry_run = false;
  std::string on_failure = "quarantine";  // quarantine, clone
  std::string clone_source;               // HOST:PORT of a transfer listener; with clone
  uint64_t rate_limit = 0;                // of the clone, bytes per second; 0: none
  FollowOptions follow;
};
int Rewind(const Client& client, const RewindOptions& options);

// ---- backup_commands.cc ----
struct BackupCreateOptions {
  std::string codec;  // zstd, lz4, none; empty: as configured
  std::optional<int> level;
  bool spread_checkpoint = false;
  std::map<std::string, std::string> annotations;
  uint64_t rate_limit = 0;  // bytes per second; 0: none
  bool ignore_free_space = false;
  FollowOptions follow;
};
int CreateBackup(const Client& client, const BackupCreateOptions& options);
int ListBackups(const Client& client);
int ShowBackup(const Client& client, const std::string& name);
struct BackupVerifyOptions {
  std::string name = "latest";
  bool rehearse = false;
  std::string scratch_directory;
  FollowOptions follow;
};
int VerifyBackup(const Client& client, const BackupVerifyOptions& options);
struct RestoreOptions {
  std::string name = "latest";
  std::string target_directory;
  std::map<std::string, std::string> tablespaces;
  std::string recover = "latest";  // latest, immediate, standby
  int port = 0;
  uint64_t term = 0;
  std::string orchestrator = "metalctl";
  bool dry_run = false;
  FollowOptions follow;
};
int RestoreBackup(const Client& client, const RestoreOptions& options);
int ShowArchive(const Client& client);

// ---- backup_text.cc ----
// "backups/20261122T021500Z-F" → "20261122T021500Z-F".
std::string BackupId(const std::string& name);
// One backup in full, for people.
std::string BackupText(const v1::Backup& backup);

// ---- disk_commands.cc ----
int ListDisks(const Client& client);
int ShowDiskHealth(const Client& client, const std::string& device);
int WatchDisks(const Client& client);
int ShowDriveLogs(const Client& client, const std::string& device);
struct ProbeOptions {
  std::string role = "data";
  int reads = 0, writes = 0;
  FollowOptions follow;
};
int ProbeDisk(const Client& client, const ProbeOptions& options);
struct AcknowledgeOptions {
  std::string fault_class, subject, device, reason;
  bool force = false;
};
int AcknowledgeFault(const Client& client, const AcknowledgeOptions& options);
std::string DiskText(const v1::DiskStatus& disk);
// "I/O 12 % (all 3 %), memory 0 %, CPU 40 %", of the last 10 s; empty where it is not known.
std::string PressureText(const v1::HostPressure& pressure);
// "FAULT …", and a line for each witness of a disk's fault.
std::string FaultText(const v1::Fault& fault);

}  // namespace metal::ctl
