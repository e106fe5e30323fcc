// WaitForLsn of replication.h.
#include <algorithm>
#include <charconv>

#include "agent/base/status.h"
#include "agent/pg/replication.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kQueryTimeout = absl::Seconds(5);
// The last WAL of a primary that steps down comes within milliseconds, and clients wait for it.
constexpr absl::Duration kFirstPause = absl::Milliseconds(2);
constexpr absl::Duration kLongestPause = absl::Milliseconds(100);

// One row: the position reached for each question, and the timeline. receive_lsn stays behind
// replay after a restart from the archive, so the greater one counts.
constexpr const char* kSql =
    R"(SELECT CASE WHEN r THEN NULL ELSE pg_current_wal_flush_lsn() END AS flush,
       CASE WHEN r THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS wal_timeline,
       CASE WHEN r THEN pg_last_wal_receive_lsn() END AS received,
       CASE WHEN r THEN pg_last_wal_replay_lsn() END AS replayed,
       w.written_lsn AS written, w.received_tli AS received_timeline,
       greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                (SELECT min_recovery_end_timeline FROM pg_control_recovery())) AS control_timeline
  FROM (SELECT pg_is_in_recovery() AS r) AS recovery LEFT JOIN pg_stat_wal_receiver AS w ON true)";

struct Position {
  base::Lsn lsn, replayed;
  base::TimelineId timeline = 0;
  bool of_primary = false;
};

Position PositionOf(const SqlResult& result, WaitFor what) {
  Position position;
  if (const std::string text = result.Text(0, "wal_timeline"); !text.empty()) {
    std::from_chars(text.data(), text.data() + text.size(), position.timeline, 16);
    position.lsn = result.LsnAt(0, "flush");
    position.of_primary = true;
    return position;
  }
  position.timeline =
      static_cast<base::TimelineId>(std::max(result.Int(0, "received_timeline").value_or(0),
                                             result.Int(0, "control_timeline").value_or(0)));
  position.lsn = position.replayed = result.LsnAt(0, "replayed");
  if (what == WaitFor::kReplayed) return position;
  position.lsn = std::max(position.lsn, result.LsnAt(0, "received"));
  if (what == WaitFor::kReceived) position.lsn = std::max(position.lsn, result.LsnAt(0, "written"));
  return position;
}

// A receiver counts what is before the segment that it asks for as received, of the timeline that
// it asks for: what lies in pg_wal tells whose it is. Without a receiver the server names the
// timeline of its last restartpoint.
void CorrectTimeline(Position& position, const WaitForLsnRequest& request) {
  if (position.of_primary || request.timeline == 0 || !request.timeline_in_wal) return;
  const base::TimelineId in_wal = request.timeline_in_wal(position.lsn);
  if (in_wal != 0 && (position.lsn > position.replayed || in_wal > position.timeline)) {
    position.timeline = in_wal;
  }
}

std::string_view WordFor(WaitFor what) {
  constexpr std::string_view kWords[] = {"received", "flushed", "replayed"};
  return kWords[static_cast<size_t>(what)];
}

}  // namespace

absl::StatusOr<base::Lsn> WaitForLsn(SqlSession& session, base::Clock& clock,
                                     const WaitForLsnRequest& request) {
  const base::MonotonicTime deadline = clock.Monotonic() + request.timeout;
  absl::Duration pause = kFirstPause;
  while (true) {
    if (request.cancelled && request.cancelled())
      return absl::CancelledError("wait for LSN: was cancelled");
    const absl::Duration left = deadline - clock.Monotonic();
    const QueryOptions options{std::clamp(left, absl::Milliseconds(100), kQueryTimeout),
                               request.cancelled};
    METAL_ASSIGN_OR_RETURN(const SqlResult result, session.Query(kSql, {}, options));
    Position position = PositionOf(result, request.what);
    if (position.lsn >= request.lsn) CorrectTimeline(position, request);
    if (request.timeline != 0 && position.timeline > request.timeline) {
      return base::WithReason(
          base::Error(absl::StatusCode::kFailedPrecondition,
                      "wait for LSN {}: the server is on timeline {}, asked for {}. HINT: the "
                      "position may belong to "
                      "another history; ask again with the present timeline",
                      request.lsn.ToString(), position.timeline, request.timeline),
          {"TIMELINE_MISMATCH", {{"timeline", fmt::format("{}", position.timeline)}}});
    }
    const bool timeline_reached = request.timeline == 0 || position.timeline == request.timeline;
    if (timeline_reached && position.lsn >= request.lsn) return position.lsn;
    if (clock.Monotonic() >= deadline) {
      return base::Error(
          absl::StatusCode::kDeadlineExceeded,
          "wait for LSN {}: {} up to {} on timeline {} after {}. HINT: metalctl status shows the "
          "replication link",
          request.lsn.ToString(), WordFor(request.what), position.lsn.ToString(), position.timeline,
          absl::FormatDuration(request.timeout));
    }
    clock.Sleep(std::min(pause, std::max(deadline - clock.Monotonic(), absl::Milliseconds(1))));
    pause = std::min(pause * 2, kLongestPause);
  }
}

}  // namespace metal::pg
