// What the server says about replication and archiving: one query for each question, right on 13
// to 18. Threading: as the session. Each query takes at most `timeout`.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/units.h"
#include "agent/pg/session.h"

namespace metal::pg {

// Fields marked * cost the server more and are filled with StateDetail::kAll only.
enum class StateDetail { kPositions, kAll };

struct ServerState {
  int version_num = 0;
  std::string version;  // "15.18"
  absl::Time start_time;
  bool in_recovery = false;
  base::TimelineId timeline =
      0;  // primary: of the WAL being written; standby: of the last restartpoint or the receiver
  base::TimelineId control_timeline =
      0;  // pg_control: behind `timeline` until the end-of-recovery checkpoint
  base::Lsn current, flush, insert;  // primary; else 0
  base::Lsn received, replayed;      // standby; received: streamed and flushed
  absl::Time last_replayed_commit = absl::InfinitePast();
  bool replay_paused = false;
  std::string pause_state;  // "not paused", "pause requested", "paused"; empty on a primary
  absl::Time server_time;
  int connections = 0, max_connections = 0;
  std::string primary_conninfo, primary_slot_name;  // in force; empty on a primary
  std::string synchronous_standby_names;
  uint64_t system_identifier = 0;
  uint64_t wal_segment_size = 0;
  std::string tablespaces;  // their OIDs in order, "1663,1664,16385"
  bool data_checksums = false;
  int64_t checksum_failures = 0;  // *
  bool pending_restart = false;   // *
};
absl::StatusOr<ServerState> QueryServerState(SqlSession& session, absl::Duration timeout,
                                             StateDetail detail = StateDetail::kPositions);

struct ReceiverState {
  std::string status;  // "starting", "streaming" (it has got something), "waiting", …
  int pid = 0;
  std::string sender_host, slot_name;
  int sender_port = 0;
  base::Lsn written, flushed, latest_end;
  base::TimelineId timeline = 0;
  absl::Time last_message = absl::InfinitePast();     // last_msg_receipt_time, the standby's clock
  absl::Time latest_end_time = absl::InfinitePast();  // the primary's clock
  std::optional<absl::Duration> timeout;              // wal_receiver_timeout; 0: off
};
// nullopt: no WAL receiver runs.
absl::StatusOr<std::optional<ReceiverState>> QueryReceiver(SqlSession& session,
                                                           absl::Duration timeout);

// Where a standby's WAL ends, when it has replayed all of it and its last try to stream more came
// to nothing: it waits before it tries again. nullopt: it streams, replays or does something else
// at this moment.
absl::StatusOr<std::optional<base::Lsn>> QueryEndOfReplay(SqlSession& session,
                                                          absl::Duration timeout);

struct FollowerState {
  int pid = 0;
  std::string application_name, client_address, state, sync_state;
  base::Lsn sent, write, flush, replay;
  std::optional<absl::Duration> write_lag, flush_lag, replay_lag;  // NULL when idle
  absl::Time reply_time = absl::InfinitePast();
};
absl::StatusOr<std::vector<FollowerState>> QueryFollowers(SqlSession& session,
                                                          absl::Duration timeout);

struct ArchiverState {
  std::string mode, command, library;  // archive_mode, archive_command, archive_library
  std::string last_archived_wal, last_failed_wal;
  absl::Time last_archived = absl::InfinitePast(), last_failed = absl::InfinitePast();
  int64_t archived_count = 0, failed_count = 0;
  uint64_t ready_segments = 0;  // *.ready
  uint64_t backlog_bytes = 0;   // ready WAL segments × segment size
  std::optional<absl::Duration> oldest_ready_age;
  bool enabled() const { return mode == "on" || mode == "always"; }
};
absl::StatusOr<ArchiverState> QueryArchiver(SqlSession& session, absl::Duration timeout);

enum class WaitFor {
  kReceived,
  kFlushed,
  kReplayed
};  // received: written by the receiver, not yet flushed

struct WaitForLsnRequest {
  base::Lsn lsn;
  base::TimelineId timeline = 0;  // 0: any
  WaitFor what = WaitFor::kReplayed;
  absl::Duration timeout = absl::Seconds(30);
  std::function<bool()> cancelled = {};
  // The newest timeline whose WAL a standby has at a position; 0: unknown. Asked when the position
  // is reached: what the server says of its timeline may be older or, of what was received, newer
  // than the truth. May be null.
  std::function<base::TimelineId(base::Lsn)> timeline_in_wal = {};
};
// On a primary its flush LSN answers for all three. Returns the LSN reached. DEADLINE_EXCEEDED
// names how far it came; FAILED_PRECONDITION (TIMELINE_MISMATCH) when the server is on another
// timeline than the one asked for.
absl::StatusOr<base::Lsn> WaitForLsn(SqlSession& session, base::Clock& clock,
                                     const WaitForLsnRequest& request);

}  // namespace metal::pg
