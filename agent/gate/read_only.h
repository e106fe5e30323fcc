// When the read-only door may be open: only to a standby that is known to be no further behind than
// the limit. Threading: one thread.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/observe/status_board.h"

namespace metal::gate {

struct ReadOnlyVerdict {
  bool open = false;
  std::string reason;  // why it is closed; empty when it is open
};

class ReadOnlyJudge {
 public:
  explicit ReadOnlyJudge(absl::Duration max_lag) : max_lag_(max_lag) {}
  // What the newest status amounts to. A lag that is not known any more grows from the last known
  // one: a standby whose link is cut stays readable until its data may be older than the limit. A
  // door that was closed opens again after the lag was within the limit for two seconds, so that
  // one at the limit does not flap.
  ReadOnlyVerdict Judge(const observe::NodeStatus& status, base::MonotonicTime now);

 private:
  ReadOnlyVerdict Look(const observe::NodeStatus& status, base::MonotonicTime now);

  const absl::Duration max_lag_;
  // The standby certainly had everything that was committed before this moment.
  base::MonotonicTime fresh_at_{-absl::InfiniteDuration()};
  base::MonotonicTime good_since_{absl::InfiniteDuration()};
  bool judged_ = false, open_ = false;
};

}  // namespace metal::gate
