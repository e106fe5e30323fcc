#include "agent/pg/promotion.h"

#include "agent/base/status.h"
#include "agent/pg/replication.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kQueryTimeout = absl::Seconds(5);
// Clients wait: a promotion that took milliseconds is seen as soon.
constexpr absl::Duration kPoll = absl::Milliseconds(3);
constexpr absl::Duration kSlowPoll = absl::Milliseconds(20);
constexpr absl::Duration kQuick = absl::Seconds(1);

}  // namespace

absl::Status Checkpoint(SqlSession& session, absl::Duration timeout,
                        std::function<bool()> cancelled) {
  // The deadline of this call is the limit, not the session's own.
  METAL_RETURN_IF_ERROR(session.Query("SET statement_timeout = 0", kQueryTimeout).status());
  const absl::Status done =
      session.Query("CHECKPOINT", {}, {timeout, std::move(cancelled)}).status();
  if (!done.ok()) return base::Annotate(done, "checkpoint");
  return session.Query("RESET statement_timeout", kQueryTimeout).status();
}

absl::StatusOr<PromoteResult> PromoteServer(SqlSession& session, base::Clock& clock,
                                            const PromoteOptions& options) {
  PromoteResult result;
  METAL_ASSIGN_OR_RETURN(ServerState state,
                         QueryServerState(session, kQueryTimeout, StateDetail::kPositions));
  result.was_primary = !state.in_recovery;
  if (state.in_recovery) {
    // Without waiting on the server: it answers false after its own timeout, and cannot be
    // cancelled cleanly.
    METAL_ASSIGN_OR_RETURN(const SqlResult asked,
                           session.Query("SELECT pg_promote(false) AS asked", kQueryTimeout));
    if (!asked.Bool(0, "asked")) {
      return base::Error(absl::StatusCode::kInternal,
                         "promote: postgres could not signal its postmaster");
    }
  }
  const base::MonotonicTime asked_at = clock.Monotonic();
  const base::MonotonicTime deadline = asked_at + options.timeout;
  while (state.in_recovery) {
    if (options.cancelled && options.cancelled()) {
      return absl::CancelledError("promote: waiting was cancelled; the promotion stays requested");
    }
    if (clock.Monotonic() >= deadline) {
      return base::WithReason(
          base::Error(absl::StatusCode::kDeadlineExceeded,
                      "promote: still in recovery after {}, replayed up to {}; the promotion stays "
                      "requested. HINT: a "
                      "restore_command that runs delays it; look at the server's log",
                      absl::FormatDuration(options.timeout), state.replayed.ToString()),
          {"PROMOTION_TIMEOUT", {{"replayed", state.replayed.ToString()}}});
    }
    clock.Sleep(clock.Monotonic() - asked_at < kQuick ? kPoll : kSlowPoll);
    METAL_ASSIGN_OR_RETURN(state,
                           QueryServerState(session, kQueryTimeout, StateDetail::kPositions));
  }
  if (options.checkpoint && state.control_timeline != state.timeline) {
    METAL_RETURN_IF_ERROR(Checkpoint(session, options.checkpoint_timeout, options.cancelled));
  }
  result.timeline = state.timeline;
  result.lsn = state.current;
  return result;
}

}  // namespace metal::pg
