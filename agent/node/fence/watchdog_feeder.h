// Feeds the hardware watchdog of a primary while the probes of the database's disks come back: a
// host that stands still with a hung disk, where no fence can be carried out, is then reset. It is
// started once the node is a primary with disks that answer, and stopped, so that nothing is reset,
// when the node is none any more and no server of it is left, or when the agent ends as told. An
// agent that dies stops feeding: its next start goes on in time, or the host is reset.
// Threading: of one thread.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/privileged.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::node {

// Every probe of a disk under the database came back lately: none is stalled or unknown, and what
// is published is not old. False when there is none.
bool ProbesComeBack(const observe::NodeStatus& status, base::MonotonicTime now);

// Some probe, of whatever disk, is outstanding for too long.
bool ProbeHangs(const observe::NodeStatus& status);

class WatchdogFeeder {
 public:
  // `device`: "/dev/watchdog"; empty: nothing is ever done. `helper` may be null.
  WatchdogFeeder(disk::PrivilegedHelper* helper, const std::string& device,
                 absl::Duration time_to_reset, observe::EventLog& events, base::Clock& clock);
  // Stops it.
  ~WatchdogFeeder();
  WatchdogFeeder(const WatchdogFeeder&) = delete;
  WatchdogFeeder& operator=(const WatchdogFeeder&) = delete;

  // To be called every second or so. `needed`: the node is a primary, or was one whose server has
  // not ended. Blocks for a second at most. Events: watchdog.started, watchdog.starved,
  // watchdog.stopped, watchdog.failed.
  void Look(bool needed, bool probes_come_back);

 private:
  void Feed();
  void Stop();

  disk::PrivilegedHelper* const helper_;
  const std::string name_;  // "watchdog"
  const absl::Duration time_to_reset_;
  observe::EventLog& events_;
  base::Clock& clock_;
  bool started_ = false, starved_ = false;
  std::string failure_;  // the last one that was told
  base::MonotonicTime next_;
};

}  // namespace metal::node
