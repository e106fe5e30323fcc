// PostgresLogWatch: follows the file that PostgreSQL logs to and hands over what it says of the
// disks (postgres_log.h). One thread, which may hang with the disk that the file is on; then it is
// left behind.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/sources/loose_thread.h"
#include "agent/disk/sources/outlet.h"
#include "agent/observe/event_log.h"

namespace metal::disk {

// Threading: thread-safe. `events` outlives it; `clock` outlives the process.
class PostgresLogWatch {
 public:
  PostgresLogWatch(std::string path, EvidenceSink sink, observe::EventLog& events,
                   base::Clock& clock, absl::Duration interval = absl::Milliseconds(500));
  // Waits up to 300 ms. The sink is not called afterwards.
  ~PostgresLogWatch();
  PostgresLogWatch(const PostgresLogWatch&) = delete;
  PostgresLogWatch& operator=(const PostgresLogWatch&) = delete;

  // The roles that are watched: "data", "wal", …; lines about other places count to "data".
  void SetRoles(std::set<std::string> roles);

 private:
  struct State;
  const std::shared_ptr<Outlet> outlet_;
  const std::shared_ptr<State> state_;
  LooseThread thread_;
};

}  // namespace metal::disk
