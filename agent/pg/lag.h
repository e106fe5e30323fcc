// How far a standby is behind, right when the primary is idle and when the link is dead.
// now() − pg_last_xact_replay_timestamp grows while the primary is idle, and received == replayed
// hides a dead link; so seconds come from LSN equality together with a fresh message from the
// primary. Source: PostgreSQL walreceiver.c (a keepalive or data message every
// wal_receiver_status_interval at most), and pg_stat_wal_receiver. Threading: pure functions.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "agent/base/units.h"

namespace metal::pg {

struct StandbyObservation {
  absl::Time now;  // the standby's clock
  bool receiver_streaming = false;
  base::Lsn received;  // flushed by the receiver
  base::Lsn replayed;
  base::Lsn latest_end;                            // the primary's last reported WAL position
  std::optional<base::Lsn> primary_lsn;            // from outside (heartbeat), if known
  absl::Time last_message = absl::InfinitePast();  // from the primary, the standby's clock
  absl::Time last_replayed_commit = absl::InfinitePast();  // commit time on the primary
  absl::Time last_caught_up = absl::InfinitePast();        // when an earlier observation had no lag
  absl::Time heartbeat =
      absl::InfinitePast();  // of the replayed metal.heartbeat, the primary's clock
  bool replay_paused = false;
};

struct LagLimits {
  // Without a message for so long the link counts as dead. An idle primary sends nothing by itself;
  // it answers the standby's ping, which comes at half of wal_receiver_timeout. This is right for
  // PostgreSQL's default of 60 s; MessageFresh gives it for others.
  absl::Duration message_fresh = absl::Seconds(40);
};

// Two thirds of wal_receiver_timeout: a ping, its answer, and some patience. Infinite when the
// timeout is off (nobody pings then); nullopt: PostgreSQL's default.
absl::Duration MessageFresh(std::optional<absl::Duration> wal_receiver_timeout);

struct StandbyLag {
  std::optional<uint64_t> bytes;
  std::optional<absl::Duration> seconds;
  // "caught_up": equal LSNs and a fresh message: 0 s. "replay_timestamp": behind; age of the last
  // replayed commit, but no more than the time since it was last caught up (else the first byte
  // after an idle hour would read as one hour). "paused": the same while replay is paused.
  // "heartbeat": behind, and no commit was replayed since this server's start: age of the replayed
  // heartbeat. "link_dead": no message for longer than the limit, or no receiver: seconds since the
  // last message, or the age of the replayed state when some of what was received is not replayed
  // (both grow); without any message since the start, the age of the replayed heartbeat; nullopt
  // without both. "unknown".
  // Ages of commits and heartbeats compare two clocks: they are wrong by their difference, and
  // never below zero. A heartbeat never makes a caught-up standby look behind, since LSNs decide
  // that.
  std::string source;
};

StandbyLag ComputeStandbyLag(const StandbyObservation& observation, const LagLimits& limits = {});

struct FollowerLag {
  uint64_t bytes = 0;
  std::optional<absl::Duration> seconds;
};
// As the primary sees it: bytes = current − replay; 0 s when equal; else the larger one of
// replay_lag and `silence`, the time since the follower's last reply; nullopt when neither is
// known.
FollowerLag ComputeFollowerLag(base::Lsn current, base::Lsn replay,
                               std::optional<absl::Duration> replay_lag,
                               std::optional<absl::Duration> silence);

}  // namespace metal::pg
