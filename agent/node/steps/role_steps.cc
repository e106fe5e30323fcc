#include "agent/node/steps/role_steps.h"

#include <algorithm>
#include <utility>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/rewind/timeline_history.h"
#include "agent/node/steps/source_steps.h"
#include "agent/pg/control_file.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/promotion.h"
#include "agent/pg/replication.h"

namespace metal::node {

namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(100);
// Clients wait while a role moves: what is done at once is seen at once.
constexpr absl::Duration kFirstPoll = absl::Milliseconds(5);
constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kDrain = absl::Seconds(2);
constexpr absl::Duration kCheckpoint = absl::Seconds(30);
constexpr int kIdlePollsNeeded = 2;

constexpr const char* kStartupWait =
    "SELECT coalesce(wait_event, '') AS wait_event FROM pg_stat_activity "
    "WHERE backend_type = 'startup'";
constexpr const char* kBusySessions =
    "SELECT count(*) AS busy FROM pg_stat_activity WHERE backend_type = 'client backend' "
    "AND pid <> pg_backend_pid() AND state <> 'idle'";

bool WaitsForWal(const std::string& wait_event) {
  return wait_event == "RecoveryRetrieveRetryInterval" || wait_event == "RecoveryWalStream";
}

void Drain(RoleStepContext& context, pg::SqlSession& session) {
  context.progress.BeginPhase("draining sessions");
  const absl::Status drained =
      PollUntil(context, kDrain, "sessions did not become idle", [&]() -> absl::StatusOr<bool> {
        METAL_ASSIGN_OR_RETURN(const pg::SqlResult busy, session.Query(kBusySessions, kQuery));
        return busy.Int(0, "busy").value_or(0) == 0;
      });
  if (!drained.ok()) base::LogInfo("event=drain message=\"{}\"", std::string(drained.message()));
  // Makes the shutdown checkpoint short. Its failure is no reason to stay a primary.
  context.progress.BeginPhase("writing a checkpoint");
  const absl::Status checkpoint = pg::Checkpoint(session, kCheckpoint);
  if (!checkpoint.ok()) {
    base::LogInfo("event=demote_checkpoint message=\"{}\"", std::string(checkpoint.message()));
  }
}

}  // namespace

absl::Status PollUntil(RoleStepContext& context, absl::Duration timeout, std::string_view what,
                       const std::function<absl::StatusOr<bool>()>& done) {
  const base::MonotonicTime deadline = context.clock.Monotonic() + timeout;
  absl::Duration pause = kFirstPoll;
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool reached, done());
    if (reached) return absl::OkStatus();
    METAL_RETURN_IF_ERROR(context.progress.CheckCancelled());
    if (context.clock.Monotonic() >= deadline) {
      return base::Error(absl::StatusCode::kDeadlineExceeded, "{} within {}", what,
                         absl::FormatDuration(timeout));
    }
    context.clock.Sleep(pause);
    pause = std::min(2 * pause, kPoll);
  }
}

absl::StatusOr<std::string> ShowSetting(pg::SqlSession& session, const std::string& name) {
  METAL_ASSIGN_OR_RETURN(const pg::SqlResult result,
                         session.Query("SELECT coalesce(current_setting($1, true), '') AS value",
                                       {name}, {kQuery, nullptr}));
  return result.Text(0, "value");
}

absl::StatusOr<std::unique_ptr<pg::SqlSession>> ConnectPatiently(RoleStepContext& context,
                                                                 absl::Duration patience) {
  const base::MonotonicTime deadline = context.clock.Monotonic() + patience;
  absl::Status last;
  while (true) {
    auto session = context.connect();
    if (session.ok()) return session;
    last = session.status();
    if (!absl::IsUnavailable(last)) break;
    METAL_RETURN_IF_ERROR(context.progress.CheckCancelled());
    if (context.clock.Monotonic() >= deadline) break;
    context.clock.Sleep(kPoll);
  }
  if (last.message().find("HINT: ") != std::string::npos) return last;
  absl::Status hinted(last.code(),
                      fmt::format("{}. HINT: repeat it once the server answers; Fence stops one "
                                  "that does not",
                                  std::string(last.message())));
  const auto reason = base::GetReason(last);
  return reason ? base::WithReason(std::move(hinted), *reason) : hinted;
}

absl::Status WaitUntilReplayed(RoleStepContext& context, pg::SqlSession& session,
                               absl::Duration timeout) {
  context.progress.BeginPhase("replaying received WAL");
  int idle_polls = 0;
  base::MonotonicTime idle_seen;
  base::Lsn received, replayed;
  const absl::Status reached =
      PollUntil(context, timeout, "received WAL was not replayed", [&]() -> absl::StatusOr<bool> {
        METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(session, kQuery));
        if (!state.in_recovery) {
          return absl::Status(absl::FailedPreconditionError(
              "the server left recovery while it was frozen. HINT: begin a higher term"));
        }
        received = state.received;
        replayed = state.replayed;
        if (received.valid() && replayed >= received) return true;
        if (state.replay_paused) {
          return base::Error(absl::StatusCode::kFailedPrecondition,
                             "replay is paused at {}. HINT: metalctl replay resume",
                             replayed.ToString());
        }
        METAL_ASSIGN_OR_RETURN(const pg::SqlResult wait, session.Query(kStartupWait, kQuery));
        if (!WaitsForWal(wait.Text(0, "wait_event"))) {
          idle_polls = 0;
        } else if (idle_polls == 0 || context.clock.Monotonic() - idle_seen >= kPoll) {
          idle_seen = context.clock.Monotonic();
          ++idle_polls;
        }
        return idle_polls >= kIdlePollsNeeded;
      });
  if (absl::IsDeadlineExceeded(reached)) {
    return base::Error(absl::StatusCode::kDeadlineExceeded,
                       "{}: at {} of {}. HINT: repeat with a longer timeout",
                       std::string(reached.message()), replayed.ToString(), received.ToString());
  }
  return reached;
}

absl::Status RestartAsStandby(RoleStepContext& context, std::unique_ptr<pg::SqlSession> session,
                              const StandbyRestart& options) {
  if (session != nullptr) {
    if (options.drain) Drain(context, *session);
    if (const absl::Status cleared = ClearSources(context, *session); !cleared.ok()) {
      if (!options.despite_sources) return cleared;
      base::LogWarning("event=demote_sources message=\"{}\"", std::string(cleared.message()));
    }
    session.reset();
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.before_demotion"));
  pg::StopOptions stop;
  stop.mode = pg::StopMode::kFast;
  stop.timeout = options.stop_timeout;
  stop.escalate_to = options.escalate_to;
  stop.escalation_timeout = options.escalation_timeout;
  pg::StartOptions start;
  start.as_standby = true;
  start.progress = &context.progress;
  start.prepare = context.may_launch;
  METAL_RETURN_IF_ERROR(context.supervisor.Restart(stop, start).status());
  return base::FaultPoint("roles.demoted");
}

base::TimelineId TimelineInWal(const std::string& data_dir, base::Lsn lsn) {
  const auto control = pg::ReadControlFile(data_dir);
  const auto files = base::ListDirectory(base::JoinPath(data_dir, "pg_wal"));
  if (!control.ok() || !files.ok()) return 0;
  return NewestTimelineAt(*files, lsn, control->wal_segment_size);
}

absl::StatusOr<WalPosition> ReadPosition(RoleStepContext& context, pg::SqlSession& session) {
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(session, kQuery));
  WalPosition position;
  position.timeline = state.timeline;
  position.replayed = state.in_recovery ? state.replayed : state.flush;
  position.received = std::max(state.received, position.replayed);
  if (state.in_recovery) {
    const base::TimelineId in_wal = TimelineInWal(context.data_dir, position.received);
    // A receiver counts what is before the segment that it asks for as received, of the timeline
    // that it asks for. It may have got nothing of that.
    const bool told_by_files = position.received > position.replayed && in_wal != 0;
    position.timeline = told_by_files ? in_wal : std::max(position.timeline, in_wal);
  }
  auto history = ReadTimelineHistory(context.data_dir, position.timeline);
  if (!history.ok() && !absl::IsNotFound(history.status())) return history.status();
  if (history.ok()) position.history = *std::move(history);
  if (state.in_recovery) StepBackToReceived(position);
  return position;
}

absl::StatusOr<WalPosition> ReadPositionOffline(const std::string& data_dir) {
  METAL_ASSIGN_OR_RETURN(const pg::DataDirectory directory, pg::InspectDataDirectory(data_dir));
  // Half made, half rewound: no position of it is worth a vote.
  if (directory.kind == pg::DataDirectoryKind::kIncomplete) return WalPosition();
  const auto control = pg::ReadControlFile(data_dir);
  if (absl::IsNotFound(control.status())) return WalPosition();
  if (!control.ok()) return control.status();
  WalPosition position;
  position.timeline = std::max(control->timeline, control->min_recovery_timeline);
  position.replayed = std::max(control->checkpoint, control->min_recovery);
  position.received = position.replayed;
  auto history = ReadTimelineHistory(data_dir, position.timeline);
  if (!history.ok() && !absl::IsNotFound(history.status())) return history.status();
  if (history.ok()) position.history = *std::move(history);
  return position;
}

}  // namespace metal::node
