// HeartbeatWriter: on a primary that its term orders to be one, keeps the schema metal, the row of
// its term and the heartbeat (metal_schema.h). It works after a round of the monitor, so that what
// the monitor sees of followers is older than the write, and with a session of its own, so that a
// write that hangs delays nobody. What it cannot do is a fault ("metal_schema"), never a failure of
// anything else. Threading: one thread, which owns the session; Nudge from any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/observe/status_board.h"
#include "agent/pg/metal_schema.h"
#include "agent/pg/session.h"

namespace metal::pg {

struct HeartbeatOptions {
  absl::Duration interval = absl::Seconds(1);  // zero: only the schema and the terms are written
  absl::Duration query_timeout = absl::Seconds(2);
  // The order under which this node is the primary; nullopt: it is none. Must not block.
  std::function<std::optional<TermOrder>()> order;
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
  void Report(const absl::Status& outcome);

  const HeartbeatOptions options_;
  const SessionFactory connect_;
  observe::StatusBoard& board_;
  base::Clock& clock_;

  // Of the thread.
  std::unique_ptr<SqlSession> session_;
  uint64_t written_term_ = 0;  // whose row is there; 0: not known of this session
  std::optional<base::MonotonicTime> next_;
  int failures_ = 0;

  base::Mutex mutex_;
  base::CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool nudged_ ABSL_GUARDED_BY(mutex_) = false;
  base::Thread thread_;
};

}  // namespace metal::pg
