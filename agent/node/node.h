// Node: what this host can be asked to do, in the domain's terms. The API layer calls nothing else
// to change anything. Long verbs start an operation and return it. Role verbs (BeginTerm, Promote,
// Fence, Unfence) also run as an operation, detached from their caller, but wait for it until it is
// done or the caller has left: DEADLINE_EXCEEDED then names the operation, which goes on; the same
// request_id joins it again. Terms and fences are stored durably before anything else happens.
// Every verb first asks the role table (role_table.h); refusals are FAILED_PRECONDITION with reason
// ROLE_TRANSITION or FENCED. Threading: thread-safe; every verb may block on disks or SQL: never
// call one on the status path.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/catalog.h"
#include "agent/backup/clone.h"
#include "agent/backup/context.h"
#include "agent/backup/copy_pace.h"
#include "agent/backup/memory_budget.h"
#include "agent/backup/rehearsal_scratch.h"
#include "agent/backup/restore.h"
#include "agent/backup/wal_archive.h"
#include "agent/base/clock.h"
#include "agent/base/config.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/disk/detached_call.h"
#include "agent/disk/disk_monitor.h"
#include "agent/disk/privileged.h"
#include "agent/disk/sources/postgres_log.h"
#include "agent/gate/gate.h"
#include "agent/node/fence/client_cut.h"
#include "agent/node/fence/fenced_peers.h"
#include "agent/node/fence/flushed_standbys.h"
#include "agent/node/fence/sick_server.h"
#include "agent/node/fence/watchdog_feeder.h"
#include "agent/node/operations/operation.h"
#include "agent/node/operations/operations.h"
#include "agent/node/requests.h"
#include "agent/node/rewind/rewind_record.h"
#include "agent/node/rewind/rewind_run.h"
#include "agent/node/room_work.h"
#include "agent/node/steps/role_steps.h"
#include "agent/node/terms/lease.h"
#include "agent/node/terms/role_table.h"
#include "agent/node/terms/term_store.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "agent/pg/apply_config.h"
#include "agent/pg/control_file.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/durability_record.h"
#include "agent/pg/install.h"
#include "agent/pg/promotion.h"
#include "agent/pg/replication_source.h"
#include "agent/pg/session.h"
#include "agent/pg/supervisor.h"

namespace metal::node {

// What a node is made of. main constructs these and keeps them alive longer than the Node.
struct NodeParts {
  const base::AgentConfig& config;
  base::Clock& clock;
  observe::StatusBoard& board;
  observe::EventLog& events;
  TermStore& terms;
  OperationManager& operations;
  pg::Install& install;
  pg::PostgresSupervisor& supervisor;
  pg::ConfigEditor& config_editor;
  pg::SessionFactory connect;  // short statements
  disk::DiskMonitor& disks;
  backup::WalArchive* wal_archive = nullptr;  // null: no repository is configured
  backup::CopyPace* copy_pace = nullptr;      // of backups and served clones; null: none
  pg::SourceIdentifier identify_source = pg::IdentifySource;
  std::optional<pg::DataDirectoryLock> data_lock;  // taken again when a data directory was made
  gate::Gate* gate = nullptr;                      // null: the gate is off
  Lease* lease = nullptr;  // the one that `terms` has; null: no lease can be given
  disk::PrivilegedHelper* helper = nullptr;  // null: no client is cut off, no watchdog is fed
};

pg::AgentSettings AgentSettingsOf(const base::AgentConfig& config);  // for initdb, restore, …

// How Postgres may be started now: as the primary only when the stored term says so *and*
// pg_control shows a server that was one (in production, shut down, in crash recovery). A standby
// whose promotion was ordered but never happened starts as one: read-write it would make a second
// history on the same timeline. So does a restored copy (backup_label), and what cannot be read.
pg::StartRole DecideStartRole(const TermRecord& record,
                              const absl::StatusOr<pg::ControlFile>& control);
// The same for a data directory, for SupervisorOptions::role_for_launch.
pg::StartRole DecideStartRole(const TermStore& terms, const std::string& data_dir);
// Whether others have to acknowledge its commits (synchronous_standby_names among the managed
// settings): then they can lead without it. Also when that cannot be read. Blocks on the data disk.
bool SharesCommits(const std::string& data_dir);

class Node {
 public:
  explicit Node(NodeParts parts);
  // Ends the operations (OperationManager::Drain) and its own threads; Postgres runs on.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Calls that wait for an action or an LSN return within 250 ms from now on: call it before the
  // API layer is asked to end. The actions go on.
  void StopWaiting();

  // Registers what can be resumed, settles what an earlier process left unfinished
  // (OperationManager::Recover), starts the role watch, the refresh of the backup section and the
  // removal of what a killed rehearsal left. Call once, after PostgresSupervisor::Begin.
  void Begin();

  // ---- PostgreSQL (postgres_actions.cc) ----
  // Result facts: data_directory, version, system_identifier.
  absl::StatusOr<Operation> InitDataDirectory(const RequestContext& context,
                                              const InitDataDirectoryRequest& request);
  // Result facts: pid, role, was_running.
  absl::StatusOr<Operation> StartPostgres(const RequestContext& context,
                                          const StartPostgresRequest& request);
  // Result facts: mode, control_state.
  absl::StatusOr<Operation> StopPostgres(const RequestContext& context,
                                         const StopPostgresRequest& request);
  // Result facts: pid, role.
  absl::StatusOr<Operation> RestartPostgres(const RequestContext& context,
                                            const RestartPostgresRequest& request);

  // ---- Configuration (config_actions.cc) ----
  absl::StatusOr<ReloadConfigAnswer> ReloadConfig(const RequestContext& context);
  absl::StatusOr<ApplyConfigAnswer> ApplyConfig(const RequestContext& context,
                                                const ApplyConfigRequest& request);
  // Both read the data disk on threads that may be left behind: DEADLINE_EXCEEDED when it does not
  // answer within `patience`, or earlier reads hang in it.
  absl::StatusOr<ConfigAnswer> GetConfig(bool include_effective, absl::Duration patience);
  absl::StatusOr<pg::ControlFile> GetControlData(absl::Duration patience);

  // ---- Roles (role_actions.cc, fence_actions.cc, role_steps.cc) ----
  // The term is stored even when the freeze that follows fails or is refused because another action
  // runs: repeat it then. A server that is down stays down: postgres_down, with pg_control's
  // position. A standby ends with primary_conninfo and restore_command cleared (ALTER SYSTEM), no
  // WAL receiver, and all received WAL replayed. A primary of a lower term is given up to 2 s for
  // its transactions, then restarted as a standby. ROLE_TRANSITION for the primary of this same
  // term.
  absl::StatusOr<BeginTermAnswer> BeginTerm(const RequestContext& context,
                                            const BeginTermRequest& request);
  // Exactly the stored term. The order is stored before the promotion, so that a crash after it
  // restarts a primary. Already the primary of this term: answers again. DEADLINE_EXCEEDED: the
  // promotion stays ordered; repeat it. HISTORY_DIVERGED: the node replayed a later term, which
  // last_term names. UNAVAILABLE: its lease, which counts from this call, would be over already;
  // nothing was ordered.
  absl::StatusOr<PromoteAnswer> Promote(const RequestContext& context,
                                        const PromoteRequest& request);
  // Stored durably first. A primary, or a server that does not answer, is stopped (fast,
  // immediate, kill: 5 s each) and started as a standby; one that is down stays down. The role
  // watch repeats this while a fenced node is found read-write.
  absl::StatusOr<FenceAnswer> Fence(const RequestContext& context, const FenceRequest& request);
  // How fast the other members' disks are, and which members are fenced because of theirs; what is
  // told of this node is left out.
  void TellPeers(std::vector<disk::PeerExcess> peers, std::vector<std::string> fenced);
  // As disk::DiskMonitor::Acknowledge. INVALID_ARGUMENT: no class, or a reason above 500 bytes.
  absl::StatusOr<std::vector<observe::Fault>> AcknowledgeFault(
      const disk::AcknowledgeRequest& request);
  absl::Status Unfence(const RequestContext& context, const TermHolder& holder);

  // ---- Replication (demote_actions.cc, follow_actions.cc, synchronous_actions.cc) ----
  // A long operation. Result facts: "prepared"; else "timeline" and "shutdown_lsn", the end of the
  // shutdown checkpoint, which are visible as soon as pg_control says "shut down", and at the end
  // "was_primary", "postgres_down", "pid". Before the term is stored a failure changes nothing;
  // after it the node is no primary any more, and comes up as a standby whatever happens.
  absl::StatusOr<Operation> Demote(const RequestContext& context, const DemoteRequest& request);
  // Makes the node that this term demoted the primary again, wherever the Demote stopped.
  absl::StatusOr<PromoteAnswer> UndoDemote(const RequestContext& context,
                                           const UndoDemoteRequest& request);
  // A term not below the stored one. Works while the server is down or cannot answer yet.
  // FAILED_PRECONDITION DIVERGED, HISTORY_DIVERGED, WRONG_SYSTEM: the source answered, and this
  // node cannot follow it.
  absl::StatusOr<FollowPrimaryAnswer> FollowPrimary(const RequestContext& context,
                                                    const FollowPrimaryRequest& request);
  absl::Status ControlReplay(const RequestContext& context, ReplayAction action);
  // FAILED_PRECONDITION SYNCHRONOUS_CHANGED: the value is not the expected one. DEADLINE_EXCEEDED:
  // the new standbys did not acknowledge; the old value is in force again.
  absl::StatusOr<SetSynchronousStandbysAnswer> SetSynchronousStandbys(
      const RequestContext& context, const SetSynchronousStandbysRequest& request);
  absl::StatusOr<ReconcileSlotsAnswer> ReconcileReplicationSlots(
      const RequestContext& context, const ReconcileSlotsRequest& request);
  // The primary's lease runs from now on for `ttl` more (lease.h); one without a lease gets one. No
  // operation: it waits neither for the action lock nor, for the same ttl as before, for a disk.
  absl::StatusOr<RenewLeaseAnswer> RenewLease(const RenewLeaseRequest& request);
  // Exactly the stored term. A long operation: makes a node whose WAL left the source's history a
  // standby of the source (rewind_actions.cc). Result facts: as documented in
  // replication_service.proto. Refusals change nothing; a failure of pg_rewind itself leaves a
  // directory that nothing starts, and the fault rewind_failed. With a clone source the node then
  // becomes a copy, unless that would not help, or could lose what only this node has.
  absl::StatusOr<Operation> Rewind(const RequestContext& context, const RewindRequest& request);
  absl::StatusOr<WaitForLsnAnswer> WaitForLsn(const WaitForLsnRequest& request);
  // What the stored term and the last observation amount to.
  RoleState CurrentRoleState();

  // ---- Traffic (traffic_actions.cc) ----
  // In every state of the node: a door may be held whatever the server does. Not journaled: the
  // gate stores its orders itself. Terms below the stored one are refused; none is stored.
  // FAILED_PRECONDITION, reason GATE_OFF, without a gate; other errors as gate::Gate.
  absl::StatusOr<HoldTrafficAnswer> HoldTraffic(const RequestContext& context,
                                                const HoldTrafficRequest& request);
  absl::StatusOr<ReleaseTrafficAnswer> ReleaseTraffic(const RequestContext& context,
                                                      const ReleaseTrafficRequest& request);

  // ---- Clone (clone_actions.cc) ----
  // Over the node's own data directory, under the stored term. Stops the server
  // that is replaced, and ends with a standby that streams from the primary. Result facts:
  // source_node, files, bytes, seconds, bytes_per_second, reconnects, start_lsn, stop_lsn,
  // timeline, io_engine, finish_seconds, streaming_after_seconds. Errors as backup::Clone and
  // ReserveWal; WRONG_SYSTEM: the primary is of another cluster.
  absl::StatusOr<Operation> Clone(const RequestContext& context, const CloneRequest& request);

  // ---- Backups (backup_actions.cc). FAILED_PRECONDITION, reason REPOSITORY, when none is
  // configured. ---- Result facts: as documented in backup_service.proto.
  absl::StatusOr<Operation> CreateBackup(const RequestContext& context,
                                         const CreateBackupRequest& request);
  absl::StatusOr<Operation> VerifyBackup(const RequestContext& context,
                                         const VerifyBackupRequest& request);
  // nullopt with validate_only. The node's own data directory: takes a term, needs Postgres
  // stopped, and the result is a standby that follows the archive whatever the recovery target says
  // about opening for writes.
  absl::StatusOr<std::optional<Operation>> RestoreBackup(const RequestContext& context,
                                                         const RestoreBackupRequest& request);
  // Of this node's cluster, newest first; damaged ones are shown as such. A node without a cluster
  // shows what the repository has. UNAVAILABLE, or why pg_control cannot be read, while nobody
  // knows which cluster is this node's: another one's backups are not shown as its own.
  absl::StatusOr<std::vector<backup::BackupInfo>> ListBackups();
  // "backups/<id>", "<id>" or "latest", which is refused as ListBackups is.
  absl::StatusOr<backup::BackupInfo> GetBackup(const std::string& name);
  absl::StatusOr<std::vector<backup::WalTimeline>> ListArchivedTimelines();

  // ---- Storage (storage_actions.cc) ----
  absl::StatusOr<Operation> RunStorageProbe(const RequestContext& context,
                                            const StorageProbeRequest& request);

  // What a disk of this node says of itself, as last read. `device` is its kernel name. NOT_FOUND
  // when no such disk is watched. Does not block.
  absl::StatusOr<disk::DriveReport> GetDriveReport(const std::string& device);

  Capabilities GetCapabilities();
  // Looks soon again at which directories are to be probed and at the backups; does not block.
  void RequestRefresh();

  OperationManager& operations() { return parts_.operations; }
  // Who may write metal.durability: the heartbeat's thread too.
  pg::RecordTurn& record_turn() { return record_turn_; }
  // What everything that moves data shares.
  backup::MemoryBudget& backup_memory() { return backup_memory_; }

 private:
  // ---- node.cc ----
  // CurrentRoleState, or, while that is unsettled or nothing runs, what the server and the data
  // directory say now.
  RoleState SettledRoleState();
  absl::Status Admit(RoleRequest request);
  // FAILED_PRECONDITION (FENCED) under a fence because of a disk that is still sick. Asked when a
  // request is admitted, and again right before a launch: the fence may land in between.
  absl::Status RefuseOnSickDisk() const;
  RoleStepContext StepsOf(OperationContext& context);
  // What is wrong with the data directory for this request, naming it; OK when nothing is.
  absl::Status ExplainDirectory(RoleRequest request);
  void RegisterResumers();
  // Runs a role change as an operation and waits for it until its caller has left.
  absl::StatusOr<OperationResult> RunRoleChange(OperationSpec spec, OperationBody body);
  // The answer of a role change that was asked for before under the same request_id; nullopt: a new
  // request. A copy of an old request that comes late must not act again (an Unfence after a later
  // Fence), so this comes before the change.
  absl::StatusOr<std::optional<OperationResult>> JoinRoleChange(const RequestContext& context);
  absl::StatusOr<OperationResult> AwaitRoleChange(const Operation& started,
                                                  const RequestContext& context);
  bool ShouldStopWaiting(const std::function<bool()>& caller_left);
  // The agent has been ending for a while: what can be left to its next start is.
  bool EndIsDue();
  OperationSpec Spec(const RequestContext& context, std::string kind, std::string subject,
                     OperationLane lane = OperationLane::kAction) const;

  // ---- The bodies of operations: postgres_actions.cc, role_actions.cc, backup_actions.cc ----
  // The agent's settings and HBA lines as configured now: they may have changed since the last
  // start.
  absl::Status InstallManagedFiles();
  // Before each start by order: the same, unless the disk is one that nothing is started on.
  absl::Status PrepareLaunch();
  absl::StatusOr<OperationResult> RunInit(OperationContext& context,
                                          const InitDataDirectoryRequest& request);
  absl::StatusOr<OperationResult> RunStart(OperationContext& context,
                                           const StartPostgresRequest& request);
  absl::StatusOr<pid_t> AwaitAdopted(OperationContext& context, pid_t pid);
  absl::StatusOr<OperationResult> RunStop(OperationContext& context,
                                          const StopPostgresRequest& request);
  absl::StatusOr<OperationResult> RunRestart(OperationContext& context,
                                             const RestartPostgresRequest& request);
  absl::StatusOr<OperationResult> RunBeginTerm(OperationContext& context,
                                               const BeginTermRequest& request);
  absl::Status FreezeServer(RoleStepContext& steps, const BeginTermRequest& request,
                            bool* connected, OperationResult& result);
  absl::StatusOr<OperationResult> RunPromote(OperationContext& context,
                                             const PromoteRequest& request, const LeaseCall& lease);
  absl::StatusOr<pg::PromoteResult> PromoteServer(OperationContext& context,
                                                  pg::SqlSession& session, absl::Duration timeout);
  absl::StatusOr<OperationResult> RunFence(OperationContext& context);
  // A confirmed fatal fault of a disk under the database, as the status shows it: one that asks for
  // this reaction, or, where it is empty, any.
  std::optional<observe::Fault> SickDisk(std::string_view reaction = {}) const;
  // Fences a primary on a sick disk, where the configuration lets the class do so (demote) and an
  // orchestrator has ever spoken. Of the role watch; waits for no disk.
  void CheckDisks();
  // Of a standby: once for each fault, as an event and among what was done about the fault.
  void AskForRebuild(const observe::Fault& fault);
  // Of the role watch: keeps in force what a fence because of a disk asks for.
  void KeepDiskFence();
  // Instead: another member is out already, and one goes at a time. Told once for each fault.
  void TellFenceWithheld(const observe::Fault& sick, const std::vector<std::string>& fenced);
  void FenceSickPrimary(const observe::Fault& sick, const TermRecord& record);
  void StartSickStop(uint64_t term, const std::string& reason);
  void FeedWatchdog();
  // Hands in that pages with wrong checksums were read.
  void CheckChecksums();
  // Ends the server by force and leaves it down.
  absl::StatusOr<OperationResult> StopOnSickDisk(OperationContext& context,
                                                 const observe::Fault& fault);
  absl::StatusOr<OperationResult> RunDemote(OperationContext& context,
                                            const DemoteRequest& request);
  absl::StatusOr<OperationResult> StepDown(OperationContext& context, const DemoteRequest& request,
                                           std::unique_ptr<pg::SqlSession> session);
  absl::StatusOr<OperationResult> RunUndoDemote(OperationContext& context,
                                                const UndoDemoteRequest& request);
  absl::StatusOr<OperationResult> RunFollow(OperationContext& context,
                                            const FollowPrimaryRequest& request);
  absl::StatusOr<pg::ReplicationSource> SourceOf(const FollowPrimaryRequest& request);
  absl::Status CheckSource(RoleStepContext& steps, pg::SqlSession* session,
                           const pg::ReplicationSource& source);
  // HISTORY_DIVERGED; UNAVAILABLE: the source cannot be asked. `session` is null when the server is
  // down or does not answer.
  absl::Status CheckTerms(pg::SqlSession* session, const pg::ReplicationSource& source);
  // The data directory is about to be another one, or has become it: the terms that its server had
  // are not those of the next one.
  void ForgetTerms();
  absl::StatusOr<OperationResult> RunControlReplay(OperationContext& context, ReplayAction action);
  absl::StatusOr<OperationResult> RunSetSynchronous(OperationContext& context,
                                                    const SetSynchronousStandbysRequest& request);
  // As an event, with the request's reason.
  void TellOfChange(OperationResult& result, const SetSynchronousStandbysRequest& request);
  absl::Status ChangePolicy(RoleStepContext& steps, pg::SqlSession& session,
                            const pg::SynchronousPolicy& before,
                            const SetSynchronousStandbysRequest& request, OperationResult& result);
  absl::StatusOr<bool> RecordChange(RoleStepContext& steps, pg::SqlSession& session,
                                    const pg::SynchronousPolicy& before,
                                    const SetSynchronousStandbysRequest& request,
                                    base::MonotonicTime end);
  pg::DurabilityOwner OwnerOfRecord(uint64_t term) const;
  absl::Status KeepDurability(RoleStepContext& steps, pg::SqlSession& session);
  void NoteDurability(pg::SqlSession& session, uint64_t term);
  absl::StatusOr<OperationResult> RunReconcileSlots(OperationContext& context,
                                                    const ReconcileSlotsRequest& request);
  void EnsureReplicationRole(pg::SqlSession& session);
  // The role for standbys exists, or none is wanted.
  bool HasReplicationRole(pg::SqlSession& session) const;
  absl::StatusOr<OperationResult> RunLeaseEnd(OperationContext& context, bool was_ours);
  absl::StatusOr<OperationResult> RunRewind(OperationContext& context,
                                            const RewindRequest& request);
  absl::StatusOr<OperationResult> RunRewindOrClone(OperationContext& context,
                                                   const RewindRequest& request);
  void ShowRewindFailed(const std::string& why);
  void ShowRewindFloor(const RewindRecord& record);
  // At the start: the floor that an earlier agent left.
  void LoadRewindFloor();
  // On the role watch: clears the fault once the floor is passed.
  void CheckRewindFloor();
  void PassRewindFloor(base::Lsn floor);
  // The directory of which a rewind left notes and faults is gone.
  void ForgetRewind();
  // The node streams under its own name again.
  absl::Status CountAgain();
  // On the directory refresher: a half-rewound directory is a fault; notes of a rewind that is over
  // go.
  void RefreshRewind(const pg::DataDirectory& directory);
  absl::StatusOr<OperationResult> RunBackup(OperationContext& context,
                                            const CreateBackupRequest& request);
  absl::StatusOr<OperationResult> RunVerify(OperationContext& context,
                                            const VerifyBackupRequest& request);
  absl::StatusOr<OperationResult> RunRestore(OperationContext& context,
                                             const RestoreBackupRequest& request);
  absl::StatusOr<OperationBody> ResumeRestore(const Operation& operation);
  absl::StatusOr<OperationResult> RunClone(OperationContext& context, const CloneRequest& request);
  absl::StatusOr<OperationBody> ResumeClone(const Operation& operation);
  absl::StatusOr<std::unique_ptr<pg::SqlSession>> ConnectToPrimary(
      const pg::ReplicationSource& source, absl::Duration timeout = absl::Seconds(10));
  absl::Status CheckPrimary(pg::SqlSession& session, const backup::CloneWelcome& source);
  absl::Status StopForClone(OperationContext& context);
  absl::StatusOr<backup::CloneReport> CopyFromSource(OperationContext& context,
                                                     const CloneRequest& request,
                                                     backup::Clone& clone, pg::SqlSession& primary,
                                                     const pg::ReplicationSource& source);
  absl::Status StartClone(OperationContext& context);
  bool IsReadOnly(std::unique_ptr<pg::SqlSession>& session);
  void FinishPromotionInBackground(bool with_replication_role);
  void NoteTerm(pg::SqlSession& session, const TermHolder& holder);

  // ---- background.cc ----
  void WatchRole();
  void CheckRole();
  bool ReadOnlyUnproven(const TermRecord& record, const observe::PostgresSection& postgres);
  void EnforceReadOnly(const TermRecord& record);
  // `refresh` says when it wants to look again.
  void RefreshLoop(absl::Duration (Node::*refresh)());
  absl::Duration RefreshDirectories();
  void LookForSystem(const absl::StatusOr<pg::ControlFile>& control);
  // The system identifier of this node's cluster, nullopt when it has none; as published, else as
  // pg_control said when the directory refresher read it last. Not known yet: waits, 2 s at most;
  // UNAVAILABLE, or why pg_control cannot be read, when it stays so. Never looks at the data disk.
  absl::StatusOr<std::optional<uint64_t>> OwnSystem();
  // ---- room_actions.cc, on a thread of its own ----
  // Makes a primary on a full disk read-only and undoes it, keeps the reserve and gives it back.
  absl::Duration KeepRoom();
  void ReportRoom(const RoomLook& look);
  void ReportReserve(const observe::ReserveSection& before, const observe::ReserveSection& now);
  void NoteFull(const std::string& text);
  void CheckpointForRoom();
  void ReportDataLock(const absl::Status& lock);
  void RefreshProbeTargets(const absl::StatusOr<pg::DataDirectory>& directory);
  absl::Duration RefreshBackups();
  // ---- lease_actions.cc, on the role watch thread ----
  void LeaseChanged();
  absl::Duration NextLook() const;
  void CheckLease();
  void EndLease(const TermRecord& record);
  void ReportLease(const TermRecord& record);
  void DisarmBehindLease();
  void RemoveLeftRehearsals(const std::vector<backup::RehearsalScratch>& left);
  static absl::Status CheckBackupName(const std::string& name);
  absl::StatusOr<backup::Catalog> OpenCatalog();
  backup::OperationContext BackupContext(observe::Progress& progress);
  // An error when it cannot be told: then nothing may be done there.
  absl::StatusOr<bool> IsOwnDirectory(const std::string& path) const;
  absl::StatusOr<backup::RestoreReport> Restore(observe::Progress& progress,
                                                const RestoreBackupRequest& request);

  // What the data disk said.
  struct DirectoryLook {
    absl::Status lock;
    absl::StatusOr<pg::ControlFile> control;
    absl::StatusOr<pg::DataDirectory> directory;
    std::vector<std::pair<std::string, dev_t>> devices;  // of the database's directories
  };

  NodeParts parts_;
  pg::RecordTurn record_turn_;
  disk::DetachedCalls data_reads_{4};
  backup::MemoryBudget backup_memory_;
  base::Mutex mutex_;
  base::CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<base::MonotonicTime> no_waiting_since_ ABSL_GUARDED_BY(mutex_);
  bool lease_changed_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t refreshes_asked_ ABSL_GUARDED_BY(mutex_) = 0;
  // In pg_control when it could be read last; nullopt within: there was none. An error as long as
  // it never could; no value: not looked yet.
  std::optional<absl::StatusOr<std::optional<uint64_t>>> system_on_disk_ ABSL_GUARDED_BY(mutex_);
  // Of the directory refresher.
  disk::DetachedCall<DirectoryLook> look_;
  bool device_compared_ = false;
  // WAL that the node must have replayed before it counts as synchronous again; 0: none.
  base::Lsn rewind_floor_ ABSL_GUARDED_BY(mutex_);
  // Of the room keeper.
  disk::DetachedCall<RoomLook> room_call_;
  disk::DetachedCall<absl::Status> room_checkpoint_;
  std::optional<RoomLook> room_;  // as last seen; nullopt: not yet
  base::MonotonicTime reserve_next_;
  // Of the role watch thread.
  bool lease_seen_running_ = false;  // by this process
  uint64_t lease_ended_term_ = 0;    // its end has been begun
  disk::ChecksumJudge checksums_;
  FollowersMemory followers_;  // of the role watch
  WatchdogFeeder watchdog_;
  std::optional<base::MonotonicTime> rogue_since_;
  uint64_t enforced_term_ = 0;
  int enforce_tries_ = 0;
  std::atomic<pid_t> fence_proven_pid_{0};  // found read-only by RunFence under the present fence
  std::atomic<pid_t> promoted_pid_{0};      // told to become a primary; it never is a standby again
  base::MonotonicTime enforce_next_;
  FencedPeers fenced_peers_;
  ClientCut cut_;
  SickServer sick_server_;
  // Starts the operation that stops the server: its journal may hang.
  std::atomic<bool> sick_stop_runs_{false};
  base::Thread sick_stop_;
  base::Thread role_watch_, directory_refresher_, repository_refresher_, cleaner_, room_keeper_;
};

}  // namespace metal::node
