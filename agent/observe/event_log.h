// The event log: what happened on this node, kept in SQLite (state_dir/events.db), bounded, and
// pushed to watchers. Append never blocks on the disk: a writer thread with a bounded queue stores;
// when the queue is full the oldest unsaved event is dropped and counted (a later "events were
// dropped" event says how many). Watchers get events before they are stored. Threading:
// thread-safe. The status path may call nothing here but Append.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"

namespace metal::observe {

enum class Severity { kInfo, kWarning, kError, kCritical };

struct Event {
  uint64_t id = 0;  // assigned by the log, grows by one, survives restarts
  absl::Time time;  // assigned by the log when infinite past
  Severity severity = Severity::kInfo;
  std::string type;  // dotted, lower case: "postgres.crashed", "backup.completed", "disk.stalled"
  std::string subject;  // what it is about: "nvme0n1", "backups/20261122T021500Z", "postgres"
  std::string message;  // one sentence for people
  std::map<std::string, std::string> attributes;
};

struct EventFilter {
  uint64_t after_id = 0;
  std::string type_prefix;
  Severity min_severity = Severity::kInfo;
  size_t limit = 1000;
  bool newest = false;  // true: the newest `limit` events (still answered oldest first)
};

class EventLog {
 public:
  virtual ~EventLog() = default;
  virtual void Append(Event event) = 0;
  // Oldest first. Reads SQLite.
  virtual absl::StatusOr<std::vector<Event>> List(const EventFilter& filter) = 0;
  // Next events for a watcher: those with id > after_id, waiting up to `timeout` for the first;
  // empty on timeout. OUT_OF_RANGE (reason RESYNC_REQUIRED) when after_id is older than the
  // in-memory window of 4096 events.
  virtual absl::StatusOr<std::vector<Event>> WaitAfter(uint64_t after_id,
                                                       absl::Duration timeout) = 0;
  virtual uint64_t last_id() = 0;
  // Waits until everything appended so far is stored, or the timeout.
  virtual absl::Status Flush(absl::Duration timeout) = 0;
};

// Opens or creates; a corrupt database is moved aside as events.db.corrupt-<time> and reported as
// an event. Keeps the newest `keep` events.
absl::StatusOr<std::unique_ptr<EventLog>> OpenEventLog(const std::string& path, base::Clock& clock,
                                                       size_t keep = 100000);

}  // namespace metal::observe
