#include "agent/pg/lag.h"

#include <algorithm>

namespace metal::pg {
namespace {

// How old the replayed state is while WAL is known to be missing.
std::optional<absl::Duration> ReplayAge(const StandbyObservation& observation) {
  // A heartbeat is a commit like others: it counts alone only until the server has replayed one.
  const absl::Time since = std::max(
      {observation.last_replayed_commit, observation.last_caught_up, observation.heartbeat});
  if (since == absl::InfinitePast()) return std::nullopt;
  return std::max(observation.now - since, absl::ZeroDuration());
}

}  // namespace

StandbyLag ComputeStandbyLag(const StandbyObservation& observation, const LagLimits& limits) {
  StandbyLag lag;
  const bool link_alive = observation.receiver_streaming &&
                          observation.now - observation.last_message <= limits.message_fresh;
  const base::Lsn target =
      std::max(observation.latest_end, observation.primary_lsn.value_or(base::Lsn{}));
  if (observation.primary_lsn || link_alive) {
    lag.bytes = base::LsnDistance(observation.replayed, std::max(target, observation.received));
  }
  if (!link_alive) {
    lag.source = "link_dead";
    if (observation.last_message != absl::InfinitePast()) {
      lag.seconds = std::max(observation.now - observation.last_message, absl::ZeroDuration());
    } else if (observation.heartbeat != absl::InfinitePast()) {
      lag.seconds = std::max(observation.now - observation.heartbeat, absl::ZeroDuration());
    }
    // What was received and not replayed when the link died is older than the silence.
    if (observation.replayed < std::max(observation.received, observation.latest_end)) {
      if (const auto age = ReplayAge(observation)) {
        lag.seconds = std::max(lag.seconds.value_or(absl::ZeroDuration()), *age);
      }
    }
    return lag;
  }
  // The receiver says "streaming" before the first message has named the primary's position.
  if (!target.valid()) {
    lag.source = "unknown";
    lag.bytes.reset();
    return lag;
  }
  if (observation.replayed >= target) {
    lag.seconds = absl::ZeroDuration();
    lag.source = "caught_up";
    // received may end inside a record that is not complete yet; nothing of it can be replayed.
    lag.bytes = 0;
    return lag;
  }
  lag.seconds = ReplayAge(observation);
  lag.source = !lag.seconds ? "unknown" : observation.replay_paused ? "paused" : "replay_timestamp";
  if (lag.source == "replay_timestamp" && observation.heartbeat != absl::InfinitePast() &&
      observation.last_replayed_commit == absl::InfinitePast() &&
      observation.last_caught_up == absl::InfinitePast()) {
    lag.source = "heartbeat";
  }
  return lag;
}

absl::Duration MessageFresh(std::optional<absl::Duration> wal_receiver_timeout) {
  if (!wal_receiver_timeout) return LagLimits{}.message_fresh;
  if (*wal_receiver_timeout <= absl::ZeroDuration()) return absl::InfiniteDuration();
  return *wal_receiver_timeout * 2 / 3;
}

FollowerLag ComputeFollowerLag(base::Lsn current, base::Lsn replay,
                               std::optional<absl::Duration> replay_lag,
                               std::optional<absl::Duration> silence) {
  FollowerLag lag;
  lag.bytes = base::LsnDistance(replay, current);
  if (replay.valid() && lag.bytes == 0) {
    lag.seconds = absl::ZeroDuration();
    return lag;
  }
  lag.seconds = replay_lag;
  // The server keeps the last replay_lag of a follower that has fallen silent.
  if (silence && *silence > lag.seconds.value_or(absl::ZeroDuration())) lag.seconds = silence;
  return lag;
}

}  // namespace metal::pg
