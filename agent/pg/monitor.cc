#include "agent/pg/monitor.h"

#include <utility>

#include "agent/base/proc.h"
#include "agent/base/status.h"
#include "agent/pg/replication_source.h"

namespace metal::pg {
namespace {

// Rounds between two looks at what costs the server more.
constexpr int64_t kDetailEvery = 10;
constexpr int64_t kArchiveEvery = 5;
// What has just arrived is given a moment to be replayed, before a standby counts as behind: else a
// small write a second on a primary would show now and then.
constexpr int kReplayLooks = 4;
constexpr absl::Duration kReplayPause = absl::Milliseconds(25);

bool Lives(observe::PostgresState state) {
  return state == observe::PostgresState::kRunning ||
         state == observe::PostgresState::kUnresponsive;
}

}  // namespace

void FillPostgresSection(const ServerState& state, observe::PostgresSection& section) {
  section.version_num = state.version_num;
  section.version = state.version;
  section.system_identifier = state.system_identifier;
  section.in_recovery = state.in_recovery;
  section.role_observed = state.in_recovery ? observe::Role::kStandby : observe::Role::kPrimary;
  section.timeline = state.timeline;
  section.current_lsn = state.current;
  section.flush_lsn = state.flush;
  section.insert_lsn = state.insert;
  section.data_checksums = state.data_checksums;
  section.checksum_failures = state.checksum_failures;
  section.connections = state.connections;
  section.max_connections = state.max_connections;
  section.settings_pending_restart = state.pending_restart;
  section.synchronous_standby_names = state.synchronous_standby_names;
}

observe::StandbySection MakeStandbySection(const ServerState& state,
                                           const std::optional<ReceiverState>& receiver,
                                           const std::optional<observe::Heartbeat>& heartbeat,
                                           LagMemory& memory) {
  observe::StandbySection section;
  section.present = state.in_recovery;
  if (!state.in_recovery) {
    memory = {};
    return section;
  }
  section.source = AddressIn(state.primary_conninfo);
  section.source_slot = state.primary_slot_name;
  section.replayed_lsn = state.replayed;
  section.last_replayed_commit = state.last_replayed_commit;
  section.replay_paused = state.replay_paused;
  section.pause_state = state.pause_state;
  section.flushed_lsn = section.received_lsn = state.received;
  StandbyObservation observation;
  LagLimits limits;
  if (receiver) {
    limits.message_fresh = MessageFresh(receiver->timeout);
    section.receiver_state = receiver->status;
    section.sender_host = receiver->sender_host;
    section.sender_port = receiver->sender_port;
    section.slot_name = receiver->slot_name;
    section.received_lsn = std::max(receiver->written, state.received);
    section.flushed_lsn = std::max(receiver->flushed, state.received);
    section.latest_end_lsn = receiver->latest_end;
    section.received_timeline = receiver->timeline;
    memory.last_message = std::max(memory.last_message, receiver->last_message);
    observation.receiver_streaming = receiver->status == "streaming";
    observation.latest_end = receiver->latest_end;
  }
  section.heartbeat = heartbeat;
  if (heartbeat) observation.heartbeat = heartbeat->time;
  section.last_message = memory.last_message;
  observation.now = state.server_time;
  observation.received = section.flushed_lsn;
  observation.replayed = state.replayed;
  observation.last_message = memory.last_message;
  observation.last_replayed_commit = state.last_replayed_commit;
  observation.last_caught_up = memory.last_caught_up;
  observation.replay_paused = state.replay_paused;
  const StandbyLag lag = ComputeStandbyLag(observation, limits);
  if (lag.source == "caught_up") memory.last_caught_up = state.server_time;
  section.lag_bytes = lag.bytes;
  section.lag_seconds = lag.seconds;
  section.lag_source = lag.source;
  return section;
}

observe::FollowersSection MakeFollowersSection(const ServerState& state,
                                               const std::vector<FollowerState>& followers,
                                               FollowerMemory& memory) {
  observe::FollowersSection section;
  FollowerMemory seen;  // only of those that are still there
  const base::Lsn current = state.in_recovery ? state.replayed : state.current;
  for (const FollowerState& follower : followers) {
    std::optional<absl::Duration> silence;
    if (follower.reply_time != absl::InfinitePast()) {
      const auto before = memory.replies.find(follower.pid);
      const bool same =
          before != memory.replies.end() && before->second.reply_time == follower.reply_time;
      const FollowerMemory::Reply reply{follower.reply_time,
                                        same ? before->second.seen_at : state.server_time};
      silence = state.server_time - reply.seen_at;
      seen.replies[follower.pid] = reply;
    }
    const FollowerLag lag =
        ComputeFollowerLag(current, follower.replay, follower.replay_lag, silence);
    observe::FollowerSection row;
    row.application_name = follower.application_name;
    row.client_address = follower.client_address;
    row.state = follower.state;
    row.sync_state = follower.sync_state;
    row.pid = follower.pid;
    row.sent_lsn = follower.sent;
    row.write_lsn = follower.write;
    row.flush_lsn = follower.flush;
    row.replay_lsn = follower.replay;
    row.lag_bytes = lag.bytes;
    row.lag_seconds = lag.seconds;
    row.reply_time = follower.reply_time;
    section.followers.push_back(std::move(row));
  }
  memory = std::move(seen);
  return section;
}

observe::ArchiveSection MakeArchiveSection(const ArchiverState& archiver) {
  observe::ArchiveSection section;
  section.enabled = archiver.enabled();
  section.mode = archiver.mode;
  section.command = archiver.command;
  section.library = archiver.library;
  section.ready_segments = archiver.ready_segments;
  section.backlog_bytes = archiver.backlog_bytes;
  section.oldest_ready_age = archiver.oldest_ready_age;
  section.last_archived_wal = archiver.last_archived_wal;
  section.last_failed_wal = archiver.last_failed_wal;
  section.last_archived = archiver.last_archived;
  section.last_failed = archiver.last_failed;
  section.archived_count = archiver.archived_count;
  section.failed_count = archiver.failed_count;
  return section;
}

PgMonitor::PgMonitor(MonitorOptions options, SessionFactory connect, observe::StatusBoard& board,
                     base::Clock& clock)
    : options_(std::move(options)), connect_(std::move(connect)), board_(board), clock_(clock) {}

PgMonitor::~PgMonitor() { Stop(); }

void PgMonitor::Start() {
  thread_ = base::Thread("pg-monitor", [this] { Loop(); });
}

void PgMonitor::Stop() {
  {
    base::MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.NotifyAll();
  thread_.Join();
}

void PgMonitor::Loop() {
  while (true) {
    RunOnce();
    if (options_.after_round) options_.after_round();
    base::MutexLock lock(mutex_);
    if (wake_.WaitFor(mutex_, options_.interval,
                      [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_; }))
      return;
  }
}

void PgMonitor::RunOnce() {
  const std::shared_ptr<const observe::NodeStatus> status = board_.Get();
  if (!Lives(status->postgres.state)) {
    session_.reset();
    failures_ = 0;
    round_ = 0;
    return;
  }
  // A stopped postmaster takes no connection, while sessions that it forked earlier still answer.
  const absl::StatusOr<base::ProcStat> postmaster = base::ReadProcStat(status->postgres.pid);
  if (postmaster.ok() && (postmaster->state == 'T' || postmaster->state == 't')) {
    PublishFailure("the postmaster process is stopped (SIGSTOP). HINT: kill -CONT");
    return;
  }
  const absl::Status observed = Observe();
  if (observed.ok()) {
    failures_ = 0;
    ++round_;
    return;
  }
  session_.reset();
  round_ = 0;
  if (++failures_ >= options_.unresponsive_after) PublishFailure(std::string(observed.message()));
}

absl::Status PgMonitor::Observe() {
  const int pid = board_.Get()->postgres.pid;
  if (!session_ || !session_->connected()) {
    METAL_ASSIGN_OR_RETURN(session_, connect_());
  }
  const StateDetail detail =
      round_ % kDetailEvery == 0 ? StateDetail::kAll : StateDetail::kPositions;
  METAL_ASSIGN_OR_RETURN(std::optional<ReceiverState> receiver, ObserveReceiver());
  METAL_ASSIGN_OR_RETURN(ServerState state,
                         QueryServerState(*session_, options_.query_timeout, detail));
  if (detail == StateDetail::kPositions) {
    state.checksum_failures = state_.checksum_failures;
    state.pending_restart = state_.pending_restart;
  }
  if (state.in_recovery && !receiver) {
    METAL_ASSIGN_OR_RETURN(receiver, QueryReceiver(*session_, options_.query_timeout));
  }
  METAL_RETURN_IF_ERROR(AwaitReplay(receiver, state));
  std::optional<TermHistory> terms;
  METAL_RETURN_IF_ERROR(ReadMetalSchema(state, detail, terms));
  METAL_ASSIGN_OR_RETURN(const std::vector<FollowerState> followers,
                         QueryFollowers(*session_, options_.query_timeout));
  std::optional<ArchiverState> archiver;
  if (round_ % kArchiveEvery == 0) {
    METAL_ASSIGN_OR_RETURN(archiver, QueryArchiver(*session_, options_.query_timeout));
  }
  if (state_.tablespaces != state.tablespaces && options_.tablespaces_changed) {
    options_.tablespaces_changed();
  }
  state_ = state;
  const observe::SectionTime now{clock_.Now(), clock_.Monotonic()};
  observe::StandbySection standby = MakeStandbySection(state, receiver, heartbeat_, memory_);
  observe::FollowersSection follower_section =
      MakeFollowersSection(state, followers, follower_memory_);
  standby.time = follower_section.time = now;
  board_.Update([&](observe::NodeStatus& status) {
    // The supervisor may have seen an end since, and started another one, on another directory
    // even: then these are news of a dead server.
    if (!Lives(status.postgres.state) || status.postgres.pid != pid) return;
    FillPostgresSection(state, status.postgres);
    status.postgres.time = now;
    if (status.postgres.state == observe::PostgresState::kUnresponsive) {
      status.postgres.state = observe::PostgresState::kRunning;
      status.postgres.state_reason.clear();
    }
    status.standby = standby;
    if (terms) status.term_history.entries = *std::move(terms);
    status.term_history.durability = durability_;
    status.term_history.time = now;
    status.followers = follower_section;
    if (!archiver) return;
    status.archive = MakeArchiveSection(*archiver);
    // What a standby could not archive while it led would be said for ever.
    const bool archives = !state.in_recovery || archiver->mode == "always";
    if (archives && options_.archive_error) status.archive.last_error = options_.archive_error();
    status.archive.time = now;
  });
  return absl::OkStatus();
}

// Before the look at what is replayed: what the primary had then is the measure, and what came in
// between is no lag.
absl::StatusOr<std::optional<ReceiverState>> PgMonitor::ObserveReceiver() {
  if (!state_.in_recovery) return std::optional<ReceiverState>();
  return QueryReceiver(*session_, options_.query_timeout);
}

absl::Status PgMonitor::AwaitReplay(const std::optional<ReceiverState>& receiver,
                                    ServerState& state) {
  const bool keeps_up = state.in_recovery && receiver && !state.replay_paused &&
                        state.server_time - memory_.last_caught_up <= options_.interval * 3;
  for (int look = 0; look < kReplayLooks && keeps_up; ++look) {
    if (state.replayed >= receiver->latest_end) break;
    clock_.Sleep(kReplayPause);
    METAL_ASSIGN_OR_RETURN(
        const ServerState later,
        QueryServerState(*session_, options_.query_timeout, StateDetail::kPositions));
    if (!later.in_recovery) break;
    state.replayed = later.replayed;
    state.received = std::max(state.received, later.received);
    state.last_replayed_commit = later.last_replayed_commit;
  }
  return absl::OkStatus();
}

// `terms` stays empty when they were not asked for or cannot be read: then what is published stays
// as it is, unless somebody cleared it. Only a session that is lost is an error.
absl::Status PgMonitor::ReadMetalSchema(const ServerState& state, StateDetail detail,
                                        std::optional<TermHistory>& terms) {
  const std::shared_ptr<const observe::NodeStatus> status = board_.Get();
  const TermHistory& known = status->term_history.entries;
  const bool own_term_missing = !state.in_recovery &&
                                status->node.role_wanted == observe::Role::kPrimary &&
                                (known.empty() || known.back().term != status->node.term);
  const bool look =
      detail == StateDetail::kAll || own_term_missing || state.timeline != state_.timeline;
  if (look) {
    auto history = QueryTermHistory(*session_, kTermHistoryRows, options_.query_timeout);
    if (!session_->connected()) return history.status();
    if (history.ok()) {
      has_metal_schema_ = !history->empty();
      terms = *std::move(history);
    }
  }
  METAL_RETURN_IF_ERROR(ReadDurabilityRecord(look));
  heartbeat_.reset();
  if (!state.in_recovery || !has_metal_schema_) return absl::OkStatus();
  auto heartbeat = QueryHeartbeat(*session_, options_.query_timeout);
  if (!session_->connected()) return heartbeat.status();
  if (heartbeat.ok()) heartbeat_ = *std::move(heartbeat);
  return absl::OkStatus();
}

// A look at the schema costs more than the row alone, which is read in every round.
absl::Status PgMonitor::ReadDurabilityRecord(bool look) {
  if (!has_metal_schema_) durability_.clear();
  if (!has_metal_schema_) return absl::OkStatus();
  const auto read = look || durability_.empty() ? QueryDurability : ReadDurability;
  auto durability = read(*session_, options_.cluster_id, options_.query_timeout);
  if (!session_->connected()) return durability.status();
  if (durability.ok()) durability_ = *std::move(durability);
  return absl::OkStatus();
}

void PgMonitor::PublishFailure(const std::string& reason) {
  board_.Update([&](observe::NodeStatus& status) {
    if (!Lives(status.postgres.state)) return;
    status.postgres.state = observe::PostgresState::kUnresponsive;
    status.postgres.state_reason = reason;
  });
}

}  // namespace metal::pg
