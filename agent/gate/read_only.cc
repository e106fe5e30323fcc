#include "agent/gate/read_only.h"

#include <algorithm>

#include "fmt/format.h"

namespace metal::gate {
namespace {

constexpr absl::Duration kSettled = absl::Seconds(2);

}  // namespace

ReadOnlyVerdict ReadOnlyJudge::Look(const observe::NodeStatus& status, base::MonotonicTime now) {
  if (status.postgres.state != observe::PostgresState::kRunning) {
    fresh_at_ = {-absl::InfiniteDuration()};
    return {false, "PostgreSQL does not run here"};
  }
  if (!status.standby.present || status.postgres.role_observed != observe::Role::kStandby) {
    fresh_at_ = {-absl::InfiniteDuration()};
    return {false, "this node is no standby"};
  }
  const base::MonotonicTime seen = status.standby.time.monotonic;
  if (status.standby.lag_seconds && status.standby.time.captured_at != absl::InfinitePast()) {
    const base::MonotonicTime fresh{seen.since_start - *status.standby.lag_seconds};
    if (fresh_at_ < fresh) fresh_at_ = fresh;
  }
  const absl::Duration behind = now - fresh_at_;
  // A look is a second old before the next one comes.
  if (behind <= max_lag_ || (status.standby.lag_seconds &&
                             *status.standby.lag_seconds <= max_lag_ && now - seen <= kSettled)) {
    return {true, ""};
  }
  if (behind == absl::InfiniteDuration()) return {false, "the standby's lag is not known"};
  return {false, fmt::format("the standby may be {} behind; the limit is {}",
                             absl::FormatDuration(absl::Trunc(behind, absl::Milliseconds(100))),
                             absl::FormatDuration(max_lag_))};
}

ReadOnlyVerdict ReadOnlyJudge::Judge(const observe::NodeStatus& status, base::MonotonicTime now) {
  ReadOnlyVerdict verdict = Look(status, now);
  if (!verdict.open) {
    good_since_ = {absl::InfiniteDuration()};
  } else {
    if (now < good_since_) good_since_ = now;
    if (judged_ && !open_ && now - good_since_ < kSettled)
      verdict = {false, "the standby's lag is within the limit again, for less than two seconds"};
  }
  judged_ = true;
  open_ = verdict.open;
  return verdict;
}

}  // namespace metal::gate
