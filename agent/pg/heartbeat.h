// HeartbeatWriter: on a primary that its term orders to be one, keeps the schema metal, the row of
// its term, the record of its durability (durability_record.h) and the heartbeat (metal_schema.h).
// It works after a round of the monitor, so that what the monitor sees of followers is older than
// the write, and with a session of its own, so that a write that hangs delays nobody. What it
// cannot do is a fault ("metal_schema"), never a failure of anything else. Threading: one thread,
// which owns the session; Nudge from any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/base/units.h"
#include "agent/observe/status_board.h"
#include "agent/pg/durability_record.h"
#include "agent/pg/metal_schema.h"
#include "agent/pg/session.h"

namespace metal::pg {

struct HeartbeatOptions {
  // Zero: no heartbeats; the rest is written all the same.
  absl::Duration interval = absl::Seconds(1);
  absl::Duration query_timeout = absl::Seconds(2);
  // The order under which this node is the primary; nullopt: it is none. Must not block.
  std::function<std::optional<TermOrder>()> order;
  std::string cluster_id;
  RecordTurn* turn = nullptr;  // null: no record is kept
  // Commits count on less than what was recorded, and nobody said so before: who set it so?
  std::function<void(const RecordState& state)> found_weaker;
};

class HeartbeatWriter {
 public:
  // References outlive this.
  HeartbeatWriter(HeartbeatOptions options, SessionFactory connect, observe::StatusBoard& board,
                  base::Clock& clock);
  ~HeartbeatWriter();

  void Start();
  void Stop();
  // The monitor has looked at the server. Does not block.
  void Nudge();
  // One round now, on the caller's thread. REQUIRES: not started. For tests.
  void RunOnce();

 private:
  void Loop();
  absl::Status Write(const TermOrder& order);
  absl::Status Prepare(const TermOrder& order);
  bool RecordIsSettled() const;
  absl::Status KeepDurability(const TermOrder& order);
  void Report(const absl::Status& outcome);

  const HeartbeatOptions options_;
  const SessionFactory connect_;
  observe::StatusBoard& board_;
  base::Clock& clock_;

  // Of the thread.
  std::unique_ptr<SqlSession> session_;
  uint64_t written_term_ = 0;  // whose row is there; 0: not known of this session
  // The policy that the record says, alone, and the turn's count of changes then.
  std::optional<std::pair<std::string, uint64_t>> settled_;
  base::Lsn record_since_;
  std::optional<base::MonotonicTime> next_;
  int failures_ = 0;

  base::Mutex mutex_;
  base::CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool nudged_ ABSL_GUARDED_BY(mutex_) = false;
  base::Thread thread_;
};

}  // namespace metal::pg
