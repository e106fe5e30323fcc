// What `shard watch --auto` does by itself, and nothing else. Because of a node's disk: what a
// primary asks for, a planned change (drain) or a failover (demote); and it takes a standby with a
// sick disk out of the synchronous set and, when it is well again, back (synchronous_set.h). And
// where nobody leads, it lets the primary lead again that came back as a standby.
// Guards: two looks in a row have to say the same; never when more than one member is sick, for
// then the cause may be another (one that is fenced, and out of the set, is no longer a member that
// a change would take out); only to a standby that is well; only with so many answers that no
// others can have gone on without them; one change of the lead in ten minutes; nobody is taken back
// into the set within a minute of its last change.
// Threading: not thread-safe; no I/O and no clock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "tools/metalctl/shard/node_view.h"
#include "tools/metalctl/shard/shard_config.h"
#include "tools/metalctl/shard/synchronous_set.h"

namespace metal::shard {

struct AutoChange {
  enum class Kind { kNone, kReparent, kFailover, kRecover, kSet };
  Kind kind = Kind::kNone;
  size_t to = 0;               // the next primary; of kRecover: it led before
  bool may_be_forced = false;  // of kReparent: the disk is dying, so a failover where that fails
  SetChange set;               // of kSet
  std::string why;  // for people; of kNone: what keeps it from acting, empty when nothing is asked
  friend bool operator==(const AutoChange&, const AutoChange&) = default;
};

// What these views ask for. `views`: one for each node of the config, in its order.
AutoChange DecideChange(const ShardConfig& config, const std::vector<NodeView>& views);

class AutoPilot {
 public:
  static constexpr absl::Duration kPause = absl::Minutes(10);  // between two changes of the lead
  // From a change of the set until a standby is taken back: a fault that comes and goes does not
  // make the policy flap. A sick one leaves without that, for commits may wait for it.
  static constexpr absl::Duration kSetPause = absl::Minutes(1);

  // After a change of the lead that failed, twice as long after each further one, up to kPause; and
  // from any change of the set until the next.
  static constexpr absl::Duration kRetry = absl::Seconds(5);

  // One look. A change is answered once, and the pause begins with it.
  AutoChange Observe(const ShardConfig& config, const std::vector<NodeView>& views,
                     base::MonotonicTime now);
  // How the change of the lead ended that Observe answered last.
  void Ended(bool succeeded, base::MonotonicTime now);

 private:
  AutoChange last_;
  std::optional<base::MonotonicTime> changed_, set_changed_;
  absl::Duration pause_ = kPause;  // since changed_
  absl::Duration retry_ = kRetry;  // the pause after the next failure
};

}  // namespace metal::shard
