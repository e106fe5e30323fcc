// Node's verbs for what a standby follows, and for its replay and WAL receiver.
//
// What if the agent dies here? FollowPrimary writes the source into metal.conf before the server is
// told: a server that starts or reloads afterwards follows it; a repeated call finds it written.
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/rewind/ancestry.h"
#include "agent/node/rewind/timeline_history.h"
#include "agent/node/role_answers.h"
#include "agent/node/steps/role_steps.h"
#include "agent/node/steps/source_steps.h"
#include "agent/pg/metal_schema.h"
#include "agent/pg/replication.h"
#include "agent/pg/replication_role.h"
#include "agent/pg/term_history.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kIdentify = absl::Seconds(5);
constexpr absl::Duration kConnect = absl::Seconds(5);
constexpr absl::Duration kReceiver = absl::Seconds(15);
constexpr absl::Duration kPause = absl::Seconds(30);
constexpr absl::Duration kSeen = absl::Seconds(2);

absl::Status WrongSystem(uint64_t here, uint64_t there, const pg::ReplicationSource& source) {
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "{}:{} is another cluster: its system identifier is {}, this node's {}. HINT: "
                  "give the primary of this shard, or Clone",
                  source.host, source.port, there, here),
      {"WRONG_SYSTEM", {{"source", fmt::format("{}", there)}, {"here", fmt::format("{}", here)}}});
}

std::string ActionName(ReplayAction action) {
  switch (action) {
    case ReplayAction::kPauseReplay:
      return "PauseReplay";
    case ReplayAction::kResumeReplay:
      return "ResumeReplay";
    case ReplayAction::kStopReceiver:
      return "StopWalReceiver";
    case ReplayAction::kStartReceiver:
      return "StartWalReceiver";
  }
  return "";
}

}  // namespace

absl::StatusOr<pg::ReplicationSource> Node::SourceOf(const FollowPrimaryRequest& request) {
  const base::AgentConfig& config = parts_.config;
  pg::ReplicationSource source;
  source.host = request.host;
  source.port = request.port;
  source.slot = request.without_slot    ? ""
                : !request.slot.empty() ? request.slot
                                        : pg::SlotNameOf(config.node_id);
  {
    base::MutexLock lock(mutex_);
    source.application_name =
        rewind_floor_.valid() ? pg::UncountedName(config.node_id) : config.node_id;
  }
  source.user = config.pg_superuser;
  if (config.replication_password_file.empty()) return source;
  source.user = config.replication_user;
  source.ssl_mode = config.replication_ssl_mode;
  source.passfile = base::JoinPath(config.state_dir, "replication.pgpass");
  METAL_ASSIGN_OR_RETURN(const std::string password,
                         pg::ReadPasswordFile(config.replication_password_file));
  METAL_RETURN_IF_ERROR(pg::WritePassfile(source.passfile, source.user, password));
  return source;
}

absl::StatusOr<FollowPrimaryAnswer> Node::FollowPrimary(const RequestContext& context,
                                                        const FollowPrimaryRequest& request) {
  if (request.host.empty() || request.port < 1 || request.port > 65535) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "primary \"{}:{}\" is no address. HINT: host and port of the primary's "
                       "PostgreSQL",
                       request.host, request.port);
  }
  METAL_RETURN_IF_ERROR(parts_.terms.CheckNotStale(request.holder));
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  OperationResult result;
  if (earlier) {
    result = *earlier;
  } else {
    METAL_RETURN_IF_ERROR(Admit(RoleRequest::kFollowPrimary));
    OperationSpec spec = Spec(context, "FollowPrimary", TermSubject(request.holder));
    spec.term = request.holder.term;
    spec.parameters = {{"orchestrator_id", request.holder.orchestrator_id},
                       {"host", request.host},
                       {"port", fmt::format("{}", request.port)}};
    METAL_ASSIGN_OR_RETURN(
        result, RunRoleChange(std::move(spec), [this, request](OperationContext& operation) {
          return RunFollow(operation, request);
        }));
  }
  return FollowPrimaryAnswer{TextIn(result, "source"), FlagIn(result, "checked"),
                             TextIn(result, "unchecked_reason")};
}

absl::Status Node::CheckSource(RoleStepContext& steps, pg::SqlSession* session,
                               const pg::ReplicationSource& source) {
  METAL_ASSIGN_OR_RETURN(const pg::SourceIdentity identity,
                         parts_.identify_source(source, kIdentify));
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(steps.data_dir));
  if (identity.system_identifier != control.system_identifier) {
    return WrongSystem(control.system_identifier, identity.system_identifier, source);
  }
  WalPosition theirs;
  theirs.timeline = identity.timeline;
  theirs.received = theirs.replayed = identity.flushed;
  METAL_ASSIGN_OR_RETURN(theirs.history, ParseTimelineHistory(identity.history));
  // A copy that has never been started has written no WAL of its own.
  METAL_ASSIGN_OR_RETURN(const bool copy,
                         base::Exists(base::JoinPath(steps.data_dir, "backup_label")));
  const bool crashed = session == nullptr && !control.clean() && !copy;
  METAL_ASSIGN_OR_RETURN(const WalPosition ours, session != nullptr
                                                     ? ReadPosition(steps, *session)
                                                     : ReadPositionOffline(steps.data_dir));
  METAL_RETURN_IF_ERROR(CheckAncestry(ours, theirs));
  METAL_RETURN_IF_ERROR(CheckTerms(session, source));
  if (!crashed) return absl::OkStatus();
  return absl::UnavailableError(
      "the server is down without a shutdown: where its WAL ends is known "
      "once it has started");
}

// Two servers that were promoted apart may be on one timeline, and nothing in their WAL tells them
// apart; the terms that they keep do. Ours are asked for first: what arrives in between then only
// adds to the source's.
absl::Status Node::CheckTerms(pg::SqlSession* session, const pg::ReplicationSource& source) {
  // Of a server that is down: as it was seen last.
  pg::TermHistory own = parts_.board.Get()->term_history.entries;
  if (session != nullptr) {
    METAL_ASSIGN_OR_RETURN(own, pg::QueryTermHistory(*session, pg::kTermHistoryRows, kQuery));
  }
  if (own.empty()) return absl::OkStatus();
  const auto theirs = [&]() -> absl::StatusOr<std::pair<pg::TermHistory, pg::SourceHistory>> {
    METAL_ASSIGN_OR_RETURN(const auto remote, ConnectToPrimary(source, kConnect));
    METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*remote, kQuery));
    METAL_ASSIGN_OR_RETURN(pg::TermHistory history,
                           pg::QueryTermHistory(*remote, pg::kTermHistoryRows, kQuery));
    return std::pair(std::move(history),
                     state.in_recovery ? pg::SourceHistory::kSoFar : pg::SourceHistory::kWhole);
  }();
  if (!theirs.ok()) {
    return absl::UnavailableError("the source's terms could not be compared with this node's: " +
                                  std::string(theirs.status().message()));
  }
  return pg::CheckMayFollow(own, theirs->first, theirs->second);
}

void Node::ForgetTerms() {
  parts_.board.Update([](observe::NodeStatus& status) { status.term_history = {}; });
}

absl::StatusOr<OperationResult> Node::RunFollow(OperationContext& context,
                                                const FollowPrimaryRequest& request) {
  RoleStepContext steps = StepsOf(context);
  METAL_ASSIGN_OR_RETURN(const pg::ReplicationSource source, SourceOf(request));
  std::unique_ptr<pg::SqlSession> session;
  const auto running = parts_.supervisor.postmaster();
  if (running != nullptr && running->alive()) {
    // One that cannot answer yet may need this very source to become consistent.
    auto connected = parts_.connect();
    if (connected.ok()) session = *std::move(connected);
  }
  if (session != nullptr) {
    METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
    if (!state.in_recovery) return CheckRequest(RoleState::kRogue, RoleRequest::kFollowPrimary);
  }
  context.progress.BeginPhase("asking the source who it is");
  const absl::Status checked = CheckSource(steps, session.get(), source);
  if (!checked.ok() && !absl::IsUnavailable(checked)) return checked;
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.before_follow"));
  METAL_RETURN_IF_ERROR(parts_.terms.Follow(request.holder));
  METAL_RETURN_IF_ERROR(parts_.supervisor.SetRole(pg::StartRole::kStandby));
  context.progress.BeginPhase("following");
  METAL_RETURN_IF_ERROR(FollowSource(steps, session.get(), source));
  OperationResult result;
  result.values = {{"source", fmt::format("{}:{}", source.host, source.port)},
                   {"slot", source.slot},
                   {"checked", Flag(checked.ok())}};
  if (!checked.ok()) result.values["unchecked_reason"] = std::string(checked.message());
  Emit(parts_.events, observe::Severity::kInfo, "replication.following", "postgres",
       fmt::format("follows {}:{}", source.host, source.port),
       {{"source", result.values["source"]}, {"slot", source.slot}});
  return result;
}

absl::Status Node::ControlReplay(const RequestContext& context, ReplayAction action) {
  METAL_ASSIGN_OR_RETURN(const auto earlier, JoinRoleChange(context));
  if (earlier) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kControlReplay));
  return RunRoleChange(Spec(context, ActionName(action), "postgres"),
                       [this, action](OperationContext& operation) {
                         return RunControlReplay(operation, action);
                       })
      .status();
}

absl::StatusOr<OperationResult> Node::RunControlReplay(OperationContext& context,
                                                       ReplayAction action) {
  RoleStepContext steps = StepsOf(context);
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectPatiently(steps, kQuery));
  switch (action) {
    case ReplayAction::kPauseReplay:
      METAL_RETURN_IF_ERROR(session->Query("SELECT pg_wal_replay_pause()", kQuery).status());
      METAL_RETURN_IF_ERROR(
          PollUntil(steps, kPause, "replay did not come to a rest", [&]() -> absl::StatusOr<bool> {
            METAL_ASSIGN_OR_RETURN(const pg::ServerState state,
                                   pg::QueryServerState(*session, kQuery));
            return state.pause_state == "paused";
          }));
      break;
    case ReplayAction::kResumeReplay:
      METAL_RETURN_IF_ERROR(session->Query("SELECT pg_wal_replay_resume()", kQuery).status());
      break;
    case ReplayAction::kStopReceiver:
      METAL_RETURN_IF_ERROR(StopReceiver(steps, *session));
      break;
    case ReplayAction::kStartReceiver:
      METAL_RETURN_IF_ERROR(StartReceiver(steps, *session));
      break;
  }
  // Whoever looks at the status after the answer, to mend what is wrong, must find it there.
  const base::MonotonicTime done = parts_.clock.Monotonic();
  (void)PollUntil(steps, kSeen, "", [&]() -> absl::StatusOr<bool> {
    return parts_.board.Get()->standby.time.monotonic >= done;
  });
  return OperationResult{};
}

bool Node::HasReplicationRole(pg::SqlSession& session) const {
  const base::AgentConfig& config = parts_.config;
  if (config.replication_password_file.empty()) return true;
  const auto present = pg::HasReplicationRole(session, config.replication_user);
  return present.ok() && *present;
}

void Node::EnsureReplicationRole(pg::SqlSession& session) {
  const base::AgentConfig& config = parts_.config;
  if (config.replication_password_file.empty()) return;
  const auto password = pg::ReadPasswordFile(config.replication_password_file);
  const absl::Status made =
      password.ok() ? pg::EnsureReplicationRole(session, config.replication_user, *password)
                    : password.status();
  if (made.ok()) return;
  // A primary without it serves; its standbys say what they miss.
  Emit(parts_.events, observe::Severity::kError, "replication.role_failed", "postgres",
       fmt::format("the role \"{}\" for standbys could not be made: {}", config.replication_user,
                   std::string(made.message())));
}

}  // namespace metal::node
