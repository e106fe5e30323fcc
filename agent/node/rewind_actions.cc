// Node's rewind: a node whose WAL left the primary's history becomes its standby (rewind_run.h: the
// sequence, and what an agent that dies leaves behind), and what the status says of it.
//
// An interrupted rewind is not taken up again by itself: its operation ends as FAILED with reason
// AGENT_RESTARTED, for meanwhile another node may be the primary. The same request as a new
// operation goes on from where it stopped, also where it went over to a clone.
#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/rewind_reasons.h"
#include "agent/base/status.h"
#include "agent/base/throttle.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/rewind/rewind_run.h"
#include "agent/node/role_answers.h"
#include "agent/node/steps/source_steps.h"
#include "agent/pg/data_directory.h"
#include "agent/transfer/channel.h"

namespace metal::node {

namespace {

constexpr const char* kFailedFault = "rewind_failed";
constexpr const char* kFloorFault = "rewind_floor";
constexpr const char* kSubject = "postgres";
constexpr absl::Duration kStreamPatience = absl::Seconds(30);

OperationResult ResultOf(const RewindOutcome& outcome, const RewindRequest& request) {
  OperationResult result;
  result.values = {{"rewound", Flag(outcome.rewound)},
                   {"source", fmt::format("{}:{}", request.host, request.port)},
                   {"timeline", fmt::format("{}", outcome.timeline)}};
  if (outcome.report.diverged_timeline != 0) {
    result.values["diverged_timeline"] = fmt::format("{}", outcome.report.diverged_timeline);
    result.values["diverged_lsn"] = outcome.report.diverged_at.ToString();
  }
  if (outcome.report.checkpoint.valid()) {
    result.values["checkpoint_lsn"] = outcome.report.checkpoint.ToString();
    result.values["bytes"] = fmt::format("{}", outcome.report.to_copy.value);
  }
  if (outcome.fetched > 0) result.values["fetched_segments"] = fmt::format("{}", outcome.fetched);
  if (request.dry_run) {
    result.values["dry_run"] = "true";
    result.values["pg_rewind_tried"] = Flag(outcome.ran);
    return result;
  }
  if (outcome.floor.valid()) result.values["floor_lsn"] = outcome.floor.ToString();
  result.values["replayed_lsn"] = outcome.replayed.ToString();
  return result;
}

// Whether a copy of another node is a way out. Not when something took too long; and what a rewind
// left half done is no copy of anything.
bool CloneMayHelp(const absl::Status& failed, bool half_rewound) {
  const auto reason = base::GetReason(failed);
  if (reason && (reason->reason == "REWIND_SOURCE" || reason->reason == "DIVERGED")) return false;
  if (absl::IsCancelled(failed) || absl::IsInvalidArgument(failed)) return false;
  return half_rewound || base::NoRewindHelps(failed);
}

}  // namespace

absl::StatusOr<Operation> Node::Rewind(const RequestContext& context,
                                       const RewindRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  if (request.host.empty() || request.port < 1 || request.port > 65535) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "source \"{}:{}\" is no address. HINT: host and port of the primary's "
                       "PostgreSQL",
                       request.host, request.port);
  }
  if (!request.clone_source.empty()) {
    METAL_RETURN_IF_ERROR(transfer::Address::Parse(request.clone_source).status());
  }
  METAL_RETURN_IF_ERROR(base::Throttle::CheckRate(request.clone_rate_limit));
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kRewind));
  // It starts the server, perhaps twice.
  if (!request.dry_run) METAL_RETURN_IF_ERROR(RefuseOnSickDisk());
  OperationSpec spec = Spec(context, "Rewind", TermSubject(request.holder));
  spec.term = request.holder.term;
  spec.parameters = {{"orchestrator_id", request.holder.orchestrator_id},
                     {"host", request.host},
                     {"port", fmt::format("{}", request.port)},
                     {"dry_run", Flag(request.dry_run)}};
  if (!request.clone_source.empty()) spec.parameters["clone_source"] = request.clone_source;
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunRewindOrClone(operation, request);
  });
}

absl::StatusOr<OperationResult> Node::RunRewindOrClone(OperationContext& context,
                                                       const RewindRequest& request) {
  const absl::StatusOr<OperationResult> rewound = RunRewind(context, request);
  if (rewound.ok() || request.dry_run || request.clone_source.empty()) return rewound;
  const std::string why(rewound.status().message());
  const auto directory = pg::InspectDataDirectory(parts_.config.pg_data_dir);
  if (!CloneMayHelp(rewound.status(), directory.ok() && directory->half_rewound())) return rewound;
  Emit(parts_.events, observe::Severity::kWarning, "rewind.cloning", kSubject,
       fmt::format("becomes a copy of {} instead: {}", request.clone_source, why),
       {{"clone_source", request.clone_source}});
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.cloning"));
  CloneRequest clone;
  clone.holder = request.holder;
  clone.source = request.clone_source;
  clone.primary_host = request.host;
  clone.primary_port = request.port;
  clone.replace = true;
  clone.rate_limit = request.clone_rate_limit;
  absl::StatusOr<OperationResult> cloned = RunClone(context, clone);
  if (!cloned.ok()) {
    return base::Annotate(cloned.status(),
                          fmt::format("{}; clone from {} instead", why, request.clone_source));
  }
  cloned->values["rewound"] = Flag(false);
  cloned->values["cloned"] = Flag(true);
  cloned->values["rewind_failed"] = why;
  return cloned;
}

absl::StatusOr<OperationResult> Node::RunRewind(OperationContext& context,
                                                const RewindRequest& request) {
  RoleStepContext steps = StepsOf(context);
  FollowPrimaryRequest source;
  source.host = request.host;
  source.port = request.port;
  source.slot = request.slot;
  METAL_ASSIGN_OR_RETURN(const pg::ReplicationSource replication, SourceOf(source));
  RewindRun run(
      {.steps = steps,
       .events = parts_.events,
       .install = parts_.install,
       .state_dir = parts_.config.state_dir,
       .node_id = parts_.config.node_id,
       .source = replication,
       .identify_source = parts_.identify_source,
       .connect_remote =
           [this](const pg::ReplicationSource& primary) { return ConnectToPrimary(primary); },
       .check_terms = [this, &replication](
                          pg::SqlSession* session) { return CheckTerms(session, replication); },
       .archive = parts_.wal_archive,
       .install_managed_files = [this] { return InstallManagedFiles(); },
       .before_change = [this, &request]() -> absl::Status {
         METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
         METAL_RETURN_IF_ERROR(parts_.terms.Follow(request.holder));
         return parts_.supervisor.SetRole(pg::StartRole::kStandby);
       },
       .on_begun = [this] { ForgetTerms(); },
       .on_floor = [this](const RewindRecord& record) { ShowRewindFloor(record); }});
  if (request.dry_run) {
    METAL_ASSIGN_OR_RETURN(const RewindOutcome found, run.DryRun());
    return ResultOf(found, request);
  }
  // Probe files are no files of the source: pg_rewind would remove them under the prober.
  parts_.disks.StopProbing("data");
  const absl::StatusOr<RewindOutcome> outcome = run.Run();
  RequestRefresh();
  if (!outcome.ok()) {
    if (run.half_rewound()) ShowRewindFailed(std::string(outcome.status().message()));
    return base::Annotate(outcome.status(), "rewind");
  }
  if (outcome->rewound) {
    PassRewindFloor(outcome->floor);
    METAL_ASSIGN_OR_RETURN(const auto session, parts_.connect());
    METAL_RETURN_IF_ERROR(
        StreamUnderOwnName(steps, *session, parts_.config.node_id, kStreamPatience));
    METAL_RETURN_IF_ERROR(RemoveRewindRecord(parts_.config.state_dir));
  }
  return ResultOf(*outcome, request);
}

void Node::ShowRewindFailed(const std::string& why) {
  observe::Fault fault;
  fault.fault_class = kFailedFault;
  fault.subject = kSubject;
  fault.severity = observe::Severity::kCritical;
  fault.message = fmt::format(
      "the data directory is half rewound and is kept as it is; nothing starts it ({}). HINT: "
      "repeat "
      "the rewind; if that cannot be, make the node anew from another one or a backup",
      why);
  fault.since = parts_.clock.Now();
  Emit(parts_.events, observe::Severity::kCritical, "rewind.failed", kSubject, fault.message);
  parts_.board.RaiseFault(std::move(fault));
}

void Node::ShowRewindFloor(const RewindRecord& record) {
  observe::Fault fault;
  fault.fault_class = kFloorFault;
  fault.subject = kSubject;
  fault.severity = observe::Severity::kWarning;
  fault.message = fmt::format(
      "rewound: WAL up to {}, which this node may have acknowledged, is not replayed yet; until "
      "then it does not count as a synchronous standby",
      record.floor.ToString());
  fault.since = parts_.clock.Now();
  parts_.board.ClearFault(kFailedFault, kSubject);
  parts_.board.RaiseFault(std::move(fault));
  base::MutexLock lock(mutex_);
  rewind_floor_ = record.floor;
}

void Node::LoadRewindFloor() {
  const auto record = LoadRewindRecord(parts_.config.state_dir);
  if (record.ok() && record->stage == RewindStage::kStarted) ShowRewindFloor(*record);
}

void Node::CheckRewindFloor() {
  base::Lsn floor;
  {
    base::MutexLock lock(mutex_);
    floor = rewind_floor_;
  }
  if (!floor.valid()) return;
  const auto status = parts_.board.Get();
  const bool primary = status->postgres.state == observe::PostgresState::kRunning &&
                       status->postgres.role_observed == observe::Role::kPrimary;
  const bool replayed = status->standby.present && status->standby.replayed_lsn >= floor;
  if (!primary && !replayed) return;
  PassRewindFloor(floor);
  RequestRefresh();  // which removes the notes
}

void Node::PassRewindFloor(base::Lsn floor) {
  parts_.board.ClearFault(kFloorFault, kSubject);
  Emit(parts_.events, observe::Severity::kInfo, "rewind.floor_passed", kSubject,
       fmt::format("replayed past {}", floor.ToString()));
  base::MutexLock lock(mutex_);
  rewind_floor_ = {};
}

void Node::ForgetRewind() {
  {
    base::MutexLock lock(mutex_);
    rewind_floor_ = {};
  }
  parts_.board.ClearFault(kFloorFault, kSubject);
  parts_.board.ClearFault(kFailedFault, kSubject);
  // The refresher tries again.
  const absl::Status removed = RemoveRewindRecord(parts_.config.state_dir);
  if (!removed.ok()) base::LogWarning("notes of a rewind: {}", std::string(removed.message()));
}

// A server that is down keeps the notes until it is up.
absl::Status Node::CountAgain() {
  observe::Progress progress(parts_.clock);
  RoleStepContext steps{parts_.clock, parts_.supervisor, parts_.connect, parts_.config.pg_data_dir,
                        progress};
  METAL_ASSIGN_OR_RETURN(const auto session, parts_.connect());
  return StreamUnderOwnName(steps, *session, parts_.config.node_id, absl::ZeroDuration());
}

void Node::RefreshRewind(const pg::DataDirectory& directory) {
  // While an action runs, the directory and the notes are its own.
  if (parts_.operations.action_lock().Current()) return;
  const bool shown =
      parts_.board.Get()->faults.contains(fmt::format("{}/{}", kFailedFault, kSubject));
  if (directory.half_rewound()) {
    if (!shown) ShowRewindFailed("it was interrupted");
    return;
  }
  if (shown) parts_.board.ClearFault(kFailedFault, kSubject);
  const auto record = LoadRewindRecord(parts_.config.state_dir);
  if (absl::IsNotFound(record.status())) return;
  // Of a directory that cannot be seen, as before its mount, nothing is known; and what of the
  // notes cannot be read may be needed.
  if (!record.ok() || directory.kind != pg::DataDirectoryKind::kCluster) return;
  {
    base::MutexLock lock(mutex_);
    if (rewind_floor_.valid()) return;
  }
  // Passed, or nothing was changed yet when the agent died.
  const auto held = parts_.operations.action_lock().TryAcquire("refresh", "RemoveRewindNotes");
  if (!held.ok()) return;
  {
    base::MutexLock lock(mutex_);
    rewind_floor_ = {};
  }
  parts_.board.ClearFault(kFloorFault, kSubject);
  absl::Status settled = CountAgain();
  if (settled.ok()) settled = RemoveRewindRecord(parts_.config.state_dir);
  if (!settled.ok()) base::LogWarning("notes of a rewind: {}", std::string(settled.message()));
}

}  // namespace metal::node
