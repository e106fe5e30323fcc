// PgMonitor: looks at the server every second over its own session and publishes what it sees.
// Sections: Postgres (versions, LSNs, counters; running ↔ unresponsive), Standby, Followers,
// Archive, each with the time of its last good observation. It connects only while the supervisor's
// published state says that a postmaster lives. Threading: one thread, which owns the session.
// Start and Stop from one owner.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/observe/status_board.h"
#include "agent/pg/lag.h"
#include "agent/pg/metal_schema.h"
#include "agent/pg/replication.h"
#include "agent/pg/session.h"

namespace metal::pg {

// What outlives the WAL receiver's row in pg_stat_wal_receiver.
struct LagMemory {
  absl::Time last_message = absl::InfinitePast();
  absl::Time last_caught_up = absl::InfinitePast();
};

// When each follower's last reply was first seen, by this server's clock, since reply_time is the
// follower's own clock. By pid of the walsender.
struct FollowerMemory {
  struct Reply {
    absl::Time reply_time;
    absl::Time seen_at;
  };
  std::map<int, Reply> replies;
};

struct MonitorOptions {
  absl::Duration interval = absl::Seconds(1);
  absl::Duration query_timeout = absl::Seconds(2);
  // Failed rounds in a row before a living server counts as unresponsive.
  int unresponsive_after = 2;
  std::string cluster_id = {};  // of whom metal.durability is read
  // Why the agent's archive did not store the last file; empty text: it did. May be empty; must not
  // block.
  std::function<std::string()> archive_error = {};
  // The set of tablespaces is another than in the round before, or is known for the first time. May
  // be empty; must not block.
  std::function<void()> tablespaces_changed = {};
  // A round has ended, whatever came of it. May be empty; must not block.
  std::function<void()> after_round = {};
};

class PgMonitor {
 public:
  // References outlive this.
  PgMonitor(MonitorOptions options, SessionFactory connect, observe::StatusBoard& board,
            base::Clock& clock);
  ~PgMonitor();

  void Start();
  void Stop();
  // One round now, on the caller's thread. REQUIRES: not started. For tests.
  void RunOnce();

 private:
  void Loop();
  absl::Status Observe();
  absl::StatusOr<std::optional<ReceiverState>> ObserveReceiver();
  absl::Status AwaitReplay(const std::optional<ReceiverState>& receiver, ServerState& state);
  absl::Status ReadMetalSchema(const ServerState& state, StateDetail detail,
                               std::optional<TermHistory>& terms);
  absl::Status ReadDurabilityRecord(bool look);
  void PublishFailure(const std::string& reason);

  const MonitorOptions options_;
  const SessionFactory connect_;
  observe::StatusBoard& board_;
  base::Clock& clock_;

  std::unique_ptr<SqlSession> session_;  // of the monitor thread
  int failures_ = 0;
  int64_t round_ = 0;
  ServerState state_;  // of the last good round
  LagMemory memory_;
  bool has_metal_schema_ = false;
  DurabilityRecord durability_;
  std::optional<observe::Heartbeat> heartbeat_;  // as a standby replayed it
  FollowerMemory follower_memory_;

  base::Mutex mutex_;
  base::CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  base::Thread thread_;
};

// Pure: what the queries said → the published sections. `section` keeps what the supervisor
// publishes.
void FillPostgresSection(const ServerState& state, observe::PostgresSection& section);
observe::StandbySection MakeStandbySection(const ServerState& state,
                                           const std::optional<ReceiverState>& receiver,
                                           const std::optional<observe::Heartbeat>& heartbeat,
                                           LagMemory& memory);
observe::FollowersSection MakeFollowersSection(const ServerState& state,
                                               const std::vector<FollowerState>& followers,
                                               FollowerMemory& memory);
observe::ArchiveSection MakeArchiveSection(const ArchiverState& archiver);

}  // namespace metal::pg
