#include "agent/pg/backup_session.h"

#include <charconv>
#include <utility>

#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr int kNewNamesSince = 150000;  // pg_backup_start, pg_backup_stop
constexpr absl::Duration kShort = absl::Seconds(30);

constexpr const char* kFactsSql =
    "SELECT pg_is_in_recovery() AS standby, current_setting('wal_level') AS wal_level, "
    "(SELECT system_identifier FROM pg_control_system()) AS system_identifier, "
    "(SELECT pg_control_checkpoint.timeline_id FROM pg_control_checkpoint()) AS timeline, "
    "pg_size_bytes(current_setting('wal_segment_size')) AS wal_segment_size";

constexpr const char* kInsertSql =
    "SELECT CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), "
    "pg_last_wal_replay_lsn()) "
    "ELSE pg_current_wal_insert_lsn() END AS lsn";

// Text after `key` up to the end of its line; nullopt when no line starts with it.
std::optional<std::string_view> LineAfter(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.starts_with(key)) return line.substr(key.size());
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<BackupLabel> ParseBackupLabel(std::string_view text) {
  const auto missing = [](std::string_view what) {
    return base::Error(absl::StatusCode::kInvalidArgument, "backup_label: no valid line \"{}\"",
                       what);
  };
  BackupLabel label;
  // "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)"
  const auto start = LineAfter(text, "START WAL LOCATION: ");
  if (!start) return missing("START WAL LOCATION");
  const auto start_lsn = base::Lsn::Parse(start->substr(0, start->find(' ')));
  const size_t file = start->find("(file ");
  if (!start_lsn || file == std::string_view::npos || !start->ends_with(')'))
    return missing("START WAL LOCATION");
  label.start_lsn = *start_lsn;
  label.start_wal_file = std::string(start->substr(file + 6, start->size() - file - 7));
  const auto checkpoint = LineAfter(text, "CHECKPOINT LOCATION: ");
  const auto checkpoint_lsn = checkpoint ? base::Lsn::Parse(*checkpoint) : std::nullopt;
  if (!checkpoint_lsn) return missing("CHECKPOINT LOCATION");
  label.checkpoint = *checkpoint_lsn;
  const auto timeline = LineAfter(text, "START TIMELINE: ");
  if (!timeline) return missing("START TIMELINE");
  const auto [end, error] =
      std::from_chars(timeline->data(), timeline->data() + timeline->size(), label.timeline);
  if (error != std::errc() || end != timeline->data() + timeline->size())
    return missing("START TIMELINE");
  label.from_standby = LineAfter(text, "BACKUP FROM: ").value_or("") == "standby";
  label.start_time = std::string(LineAfter(text, "START TIME: ").value_or(""));
  label.label = std::string(LineAfter(text, "LABEL: ").value_or(""));
  return label;
}

BackupSession::BackupSession(std::unique_ptr<SqlSession> session) : session_(std::move(session)) {}

void BackupSession::Abort() {
  session_.reset();
  running_ = false;
}

absl::StatusOr<ArchiveSettings> BackupSession::QueryArchiving() {
  if (!session_) return absl::FailedPreconditionError("start backup: the session is closed");
  METAL_ASSIGN_OR_RETURN(
      const SqlResult result,
      session_->Query("SELECT pg_is_in_recovery() AS standby, "
                      "current_setting('archive_mode') AS mode, "
                      "current_setting('archive_command') AS command, "
                      "coalesce(current_setting('archive_library', true), '') AS library",
                      kShort));
  return ArchiveSettings{result.Bool(0, "standby"), result.Text(0, "mode"),
                         result.Text(0, "command"), result.Text(0, "library")};
}

absl::StatusOr<BackupStart> BackupSession::Start(const BackupStartOptions& options) {
  if (!session_) return absl::FailedPreconditionError("start backup: the session is closed");
  if (running_) return absl::FailedPreconditionError("start backup: one runs in this session");
  // A checkpoint may take long; the deadlines of the calls are the limit.
  METAL_RETURN_IF_ERROR(session_->Query("SET statement_timeout = 0", kShort).status());
  absl::StatusOr<SqlResult> facts = session_->Query(kFactsSql, kShort);
  if (!facts.ok()) return base::Annotate(facts.status(), "start backup");
  if (facts->Text(0, "wal_level") == "minimal") {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "start backup: wal_level is minimal. HINT: set wal_level to replica and restart postgres");
  }
  BackupStart start;
  start.server_version = session_->server_version();
  start.from_standby = facts->Bool(0, "standby");
  start.system_identifier = static_cast<uint64_t>(facts->Int(0, "system_identifier").value_or(0));
  start.wal_segment_size = static_cast<uint64_t>(facts->Int(0, "wal_segment_size").value_or(0));
  const char* sql = start.server_version >= kNewNamesSince
                        ? "SELECT pg_backup_start($1, $2::boolean) AS lsn"
                        : "SELECT pg_start_backup($1, $2::boolean, false) AS lsn";
  const std::vector<SqlValue> parameters = {options.label, options.fast_checkpoint ? "t" : "f"};
  absl::StatusOr<SqlResult> begun =
      session_->Query(sql, parameters, {options.timeout, options.cancelled});
  if (!begun.ok()) return base::Annotate(begun.status(), "start backup");
  running_ = true;
  start.lsn = begun->LsnAt(0, "lsn");
  // The start checkpoint is in pg_control now. On a standby two restartpoints of different
  // timelines may follow each other, so the timeline is the one of the restartpoint that was used.
  METAL_ASSIGN_OR_RETURN(const SqlResult after, session_->Query(kFactsSql, kShort));
  start.timeline = static_cast<base::TimelineId>(after.Int(0, "timeline").value_or(0));
  if (!start.lsn.valid() || start.timeline == 0 || start.wal_segment_size == 0) {
    return base::Error(absl::StatusCode::kInternal, "start backup: postgres answered no position");
  }
  start_ = start;
  return start;
}

absl::StatusOr<base::Lsn> BackupSession::CurrentInsertLsn(absl::Duration timeout) {
  if (!session_) return absl::UnavailableError("backup session is closed");
  METAL_ASSIGN_OR_RETURN(const SqlResult result, session_->Query(kInsertSql, timeout));
  return result.LsnAt(0, "lsn");
}

absl::StatusOr<BackupStop> BackupSession::Stop(absl::Duration timeout) {
  if (!session_ || !running_) return absl::FailedPreconditionError("stop backup: none runs");
  METAL_ASSIGN_OR_RETURN(const SqlResult facts, session_->Query(kFactsSql, kShort));
  if (start_.from_standby && !facts.Bool(0, "standby")) {
    return base::WithReason(base::Error(absl::StatusCode::kFailedPrecondition,
                                        "stop backup: the standby was promoted during the backup, "
                                        "which is therefore not valid. HINT: "
                                        "take a new one"),
                            {"STANDBY_PROMOTED", {}});
  }
  const char* sql = start_.server_version >= kNewNamesSince
                        ? "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)"
                        : "SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, false)";
  absl::StatusOr<SqlResult> result = session_->Query(sql, {}, {timeout, nullptr});
  if (!result.ok()) return base::Annotate(result.status(), "stop backup");
  running_ = false;
  BackupStop stop;
  stop.lsn = result->LsnAt(0, "lsn");
  stop.backup_label = result->Text(0, "labelfile");
  stop.tablespace_map = result->Text(0, "spcmapfile");
  if (!stop.lsn.valid())
    return base::Error(absl::StatusCode::kInternal, "stop backup: postgres answered no position");
  METAL_ASSIGN_OR_RETURN(const BackupLabel label, ParseBackupLabel(stop.backup_label));
  if (label.start_lsn != start_.lsn) {
    return base::Error(absl::StatusCode::kInternal,
                       "stop backup: backup_label starts at {}, the backup at {}",
                       label.start_lsn.ToString(), start_.lsn.ToString());
  }
  // A primary cannot change its timeline while it runs; a standby may have followed its source to
  // another one.
  stop.timeline = label.timeline;
  if (start_.from_standby) {
    METAL_ASSIGN_OR_RETURN(
        const SqlResult recovery,
        session_->Query("SELECT min_recovery_end_timeline AS timeline FROM pg_control_recovery()",
                        kShort));
    stop.timeline = std::max(
        stop.timeline,
        static_cast<base::TimelineId>(recovery.Int(0, "timeline").value_or(stop.timeline)));
  }
  return stop;
}

}  // namespace metal::pg
