#include "agent/pg/replication.h"

#include <algorithm>
#include <charconv>

#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr int kPauseStateSince = 140000;  // pg_get_wal_replay_pause_state

// pg_current_wal_* and pg_walfile_name raise an error in recovery; CASE keeps them from being
// called.
std::string StateSql(int server_version, StateDetail detail) {
  const char* pause =
      server_version >= kPauseStateSince
          ? "pg_get_wal_replay_pause_state()"
          : "CASE WHEN pg_is_wal_replay_paused() THEN 'paused' ELSE 'not paused' END";
  const bool all = detail == StateDetail::kAll;
  return fmt::format(
      R"(SELECT current_setting('server_version_num') AS version_num,
       current_setting('server_version') AS version,
       extract(epoch FROM pg_postmaster_start_time()) AS start_time,
       extract(epoch FROM clock_timestamp()) AS now,
       r AS in_recovery,
       CASE WHEN NOT r THEN pg_current_wal_lsn() END AS current,
       CASE WHEN NOT r THEN pg_current_wal_flush_lsn() END AS flush,
       CASE WHEN NOT r THEN pg_current_wal_insert_lsn() END AS insert,
       CASE WHEN NOT r THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS wal_timeline,
       CASE WHEN r THEN pg_last_wal_receive_lsn() END AS received,
       CASE WHEN r THEN pg_last_wal_replay_lsn() END AS replayed,
       CASE WHEN r THEN extract(epoch FROM pg_last_xact_replay_timestamp()) END AS last_commit,
       CASE WHEN r THEN {} END AS pause_state,
       CASE WHEN r THEN (SELECT max(received_tli) FROM pg_stat_get_wal_receiver()) END AS received_timeline,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS control_timeline,
       (SELECT min_recovery_end_timeline FROM pg_control_recovery()) AS recovery_timeline,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       CASE WHEN r THEN current_setting('primary_conninfo') END AS primary_conninfo,
       CASE WHEN r THEN current_setting('primary_slot_name') END AS primary_slot_name,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       current_setting('data_checksums') AS data_checksums,
       current_setting('max_connections') AS max_connections,
       pg_size_bytes(current_setting('wal_segment_size')) AS wal_segment_size,
       (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_tablespace) AS tablespaces,
       (SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'client backend') AS connections,
       {} AS checksum_failures,
       {} AS pending_restart
  FROM (SELECT pg_is_in_recovery() AS r) AS recovery)",
      pause, all ? "(SELECT sum(checksum_failures) FROM pg_stat_database)" : "NULL",
      all ? "EXISTS (SELECT FROM pg_settings WHERE pending_restart)" : "NULL");
}

// The statement began in recovery, and asked for the state of a replay that a promotion had ended
// by then: object_not_in_prerequisite_state. There is no way back, so asked again it answers.
bool RecoveryEndedMeanwhile(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  if (!reason) return false;
  const auto state = reason->metadata.find("sqlstate");
  return state != reason->metadata.end() && state->second == "55000";
}

uint32_t HexTimeline(const std::string& text) {
  uint32_t timeline = 0;
  std::from_chars(text.data(), text.data() + text.size(), timeline, 16);
  return timeline;
}

base::TimelineId TimelineAt(const SqlResult& result, std::string_view column) {
  return static_cast<base::TimelineId>(result.Int(0, column).value_or(0));
}

std::optional<absl::Duration> SecondsAt(const SqlResult& result, size_t row,
                                        std::string_view column) {
  const std::optional<double> seconds = result.Double(row, column);
  if (!seconds) return std::nullopt;
  return absl::Seconds(*seconds);
}

absl::Status NoRow(std::string_view what) {
  return base::Error(absl::StatusCode::kInternal, "postgres answered no row for {}", what);
}

}  // namespace

absl::StatusOr<ServerState> QueryServerState(SqlSession& session, absl::Duration timeout,
                                             StateDetail detail) {
  const std::string sql = StateSql(session.server_version(), detail);
  absl::StatusOr<SqlResult> answer = session.Query(sql, timeout);
  if (RecoveryEndedMeanwhile(answer.status())) answer = session.Query(sql, timeout);
  if (!answer.ok()) return answer.status();
  const SqlResult& result = *answer;
  if (result.rows.empty()) return NoRow("the server's state");
  ServerState state;
  state.version_num = static_cast<int>(result.Int(0, "version_num").value_or(0));
  state.version = result.Text(0, "version");
  state.version = state.version.substr(0, state.version.find(' '));
  state.start_time = result.Time(0, "start_time");
  state.server_time = result.Time(0, "now");
  state.in_recovery = result.Bool(0, "in_recovery");
  state.current = result.LsnAt(0, "current");
  state.flush = result.LsnAt(0, "flush");
  state.insert = result.LsnAt(0, "insert");
  state.received = result.LsnAt(0, "received");
  state.replayed = result.LsnAt(0, "replayed");
  state.last_replayed_commit = result.Time(0, "last_commit");
  state.pause_state = result.Text(0, "pause_state");
  state.replay_paused = state.pause_state == "paused";
  state.control_timeline = TimelineAt(result, "control_timeline");
  state.timeline = state.in_recovery
                       ? std::max({state.control_timeline, TimelineAt(result, "recovery_timeline"),
                                   TimelineAt(result, "received_timeline")})
                       : HexTimeline(result.Text(0, "wal_timeline"));
  state.primary_conninfo = result.Text(0, "primary_conninfo");
  state.primary_slot_name = result.Text(0, "primary_slot_name");
  state.synchronous_standby_names = result.Text(0, "synchronous_standby_names");
  state.data_checksums = result.Text(0, "data_checksums") == "on";
  state.checksum_failures = result.Int(0, "checksum_failures").value_or(0);
  state.connections = static_cast<int>(result.Int(0, "connections").value_or(0));
  state.max_connections = static_cast<int>(result.Int(0, "max_connections").value_or(0));
  state.pending_restart = result.Bool(0, "pending_restart");
  state.tablespaces = result.Text(0, "tablespaces");
  state.system_identifier = static_cast<uint64_t>(result.Int(0, "system_identifier").value_or(0));
  state.wal_segment_size = static_cast<uint64_t>(result.Int(0, "wal_segment_size").value_or(0));
  return state;
}

absl::StatusOr<std::optional<ReceiverState>> QueryReceiver(SqlSession& session,
                                                           absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(
      const SqlResult result,
      session.Query(
          "SELECT pid, status, sender_host, sender_port, slot_name, written_lsn, flushed_lsn, "
          "latest_end_lsn, received_tli, extract(epoch FROM last_msg_receipt_time) AS "
          "last_message, "
          "extract(epoch FROM latest_end_time) AS latest_end_time, "
          "extract(epoch FROM current_setting('wal_receiver_timeout')::interval) AS timeout "
          "FROM pg_stat_wal_receiver",
          timeout));
  if (result.rows.empty()) return std::optional<ReceiverState>();
  ReceiverState state;
  state.pid = static_cast<int>(result.Int(0, "pid").value_or(0));
  state.status = result.Text(0, "status");
  state.sender_host = result.Text(0, "sender_host");
  state.sender_port = static_cast<int>(result.Int(0, "sender_port").value_or(0));
  state.slot_name = result.Text(0, "slot_name");
  state.written = result.LsnAt(0, "written_lsn");
  state.flushed = result.LsnAt(0, "flushed_lsn");
  state.latest_end = result.LsnAt(0, "latest_end_lsn");
  state.timeline = TimelineAt(result, "received_tli");
  state.last_message = result.Time(0, "last_message");
  state.latest_end_time = result.Time(0, "latest_end_time");
  state.timeout = SecondsAt(result, 0, "timeout");
  // It calls itself streaming before it has asked, and while it asks in vain. What it has written
  // begins at 0 with its process.
  if (state.status == "streaming" && !state.written.valid()) state.status = "starting";
  return std::optional<ReceiverState>(std::move(state));
}

absl::StatusOr<std::optional<base::Lsn>> QueryEndOfReplay(SqlSession& session,
                                                          absl::Duration timeout) {
  // Source: WaitForWALToBecomeAvailable in xlogrecovery.c: it waits so only when there is nothing
  // in pg_wal, no command brings it, and the stream has failed.
  METAL_ASSIGN_OR_RETURN(
      const SqlResult row,
      // In this order: what was replayed until then counts.
      session.Query("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' "
                    "AND wait_event = 'RecoveryRetrieveRetryInterval') AS waits, "
                    "pg_last_wal_replay_lsn() AS replayed",
                    timeout));
  if (!row.Bool(0, "waits")) return std::optional<base::Lsn>();
  return std::optional(row.LsnAt(0, "replayed"));
}

absl::StatusOr<std::vector<FollowerState>> QueryFollowers(SqlSession& session,
                                                          absl::Duration timeout) {
  // A running pg_basebackup has a row with state "backup" and no positions: it is no follower.
  METAL_ASSIGN_OR_RETURN(const SqlResult result,
                         session.Query("SELECT pid, application_name, client_addr, state, "
                                       "sync_state, sent_lsn, write_lsn, flush_lsn, "
                                       "replay_lsn, extract(epoch FROM write_lag) AS write_lag, "
                                       "extract(epoch FROM flush_lag) AS flush_lag, "
                                       "extract(epoch FROM replay_lag) AS replay_lag, "
                                       "extract(epoch FROM reply_time) AS reply_time "
                                       "FROM pg_stat_replication WHERE state IS DISTINCT FROM "
                                       "'backup' ORDER BY application_name, pid",
                                       timeout));
  std::vector<FollowerState> followers;
  for (size_t row = 0; row < result.rows.size(); ++row) {
    FollowerState follower;
    follower.pid = static_cast<int>(result.Int(row, "pid").value_or(0));
    follower.application_name = result.Text(row, "application_name");
    follower.client_address = result.Text(row, "client_addr");
    follower.state = result.Text(row, "state");
    follower.sync_state = result.Text(row, "sync_state");
    follower.sent = result.LsnAt(row, "sent_lsn");
    follower.write = result.LsnAt(row, "write_lsn");
    follower.flush = result.LsnAt(row, "flush_lsn");
    follower.replay = result.LsnAt(row, "replay_lsn");
    follower.write_lag = SecondsAt(result, row, "write_lag");
    follower.flush_lag = SecondsAt(result, row, "flush_lag");
    follower.replay_lag = SecondsAt(result, row, "replay_lag");
    follower.reply_time = result.Time(row, "reply_time");
    followers.push_back(std::move(follower));
  }
  return followers;
}

absl::StatusOr<ArchiverState> QueryArchiver(SqlSession& session, absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(
      const SqlResult result,
      session.Query(
          R"(SELECT current_setting('archive_mode') AS mode, current_setting('archive_command') AS command,
       coalesce(current_setting('archive_library', true), '') AS library,
       a.last_archived_wal, extract(epoch FROM a.last_archived_time) AS last_archived,
       a.last_failed_wal, extract(epoch FROM a.last_failed_time) AS last_failed, a.archived_count, a.failed_count,
       s.ready, s.ready_wal * pg_size_bytes(current_setting('wal_segment_size')) AS backlog,
       extract(epoch FROM clock_timestamp() - s.oldest) AS oldest_age
  FROM pg_stat_archiver AS a,
       (SELECT count(*) AS ready, count(*) FILTER (WHERE name ~ '^[0-9A-F]{24}\.ready$') AS ready_wal,
               min(modification) AS oldest
          FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') AS s)",
          timeout));
  if (result.rows.empty()) return NoRow("the archiver's state");
  ArchiverState state;
  state.mode = result.Text(0, "mode");
  state.command = result.Text(0, "command");
  state.library = result.Text(0, "library");
  state.last_archived_wal = result.Text(0, "last_archived_wal");
  state.last_failed_wal = result.Text(0, "last_failed_wal");
  state.last_archived = result.Time(0, "last_archived");
  state.last_failed = result.Time(0, "last_failed");
  state.archived_count = result.Int(0, "archived_count").value_or(0);
  state.failed_count = result.Int(0, "failed_count").value_or(0);
  state.ready_segments = static_cast<uint64_t>(result.Int(0, "ready").value_or(0));
  state.backlog_bytes = static_cast<uint64_t>(result.Int(0, "backlog").value_or(0));
  state.oldest_ready_age = SecondsAt(result, 0, "oldest_age");
  return state;
}

}  // namespace metal::pg
