// The lease of this node as a primary. Whoever leads gives it with Promote or RenewLease and renews
// it; a primary whose lease is not renewed for its ttl stops being one, and never becomes one again
// by itself.
//
// What is promised. Let R be when the last call that was answered OK and gave or renewed the lease
// reached this node: when Node::Promote or Node::RenewLease began, however long they took. At R +
// ttl no session of a client is left and no write is accepted, whatever the agent's state: running,
// frozen, dead, restarted or being replaced. Before that, at LeaseTimes::ordered_stop, the agent
// takes no renewal any more and stops the server gently; a lease guard, a process of its own, ends
// what is left at LeaseTimes::kill. The rest is what the kernel needs to schedule the guard and to
// end processes: 125 ms with a ttl of 1 s, 0.75 s with 10 s, 2.5 s from 33 s on.
// What is not promised: on a host that was suspended, writes may be accepted for as long as the
// guard needs to be scheduled after it woke. Somebody who kills the guard is found by the agent
// within a second, and the guard started again; who kills both has stopped the promise.
// What a caller knows. A call counts from when it reaches the node, also when another one that came
// later was faster; a renewal, and a Promote of a primary that has a lease, only while the lease is
// in force. A first lease that would be over when it is given is not given. After a call without an
// answer the lease ends within ttl of the moment at which that call can no longer arrive; with one
// such call after the last answer, within 2 ttl of that answer. Renewing every ttl / 3 leaves room
// for two calls that fail.
//
// A restart of the agent changes nothing: the times are in the lease page, by the clock that counts
// from boot. After a reboot the lease has run out. Threading: thread-safe; nothing here waits for a
// disk, but Prepare starts a process.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/node/terms/term_record.h"
#include "agent/observe/status_board.h"
#include "agent/pg/lease_page.h"

namespace metal::node {

// The server behind a page that is armed without a lease of the present order.
struct ServerBehindLease {
  const observe::PostgresSection& seen;  // as published last, which may be a while ago
  pid_t running = 0;                     // the postmaster that lives now; 0: none
  pid_t promoted = 0;                    // the last one that was told to become a primary; 0: none
};
// Whether such a page guards nothing any more: no server of its lease is left as a primary, or the
// stored order is to be one without a lease. One that was told to become a primary counts as one
// until it ends, whatever was seen: what is published may be older than its promotion, and one that
// was given up may still come about. `armed_term`: of the page.
bool GuardsNothing(const TermRecord& record, uint64_t armed_term, const ServerBehindLease& server);

// A call that gives or renews a lease.
struct LeaseCall {
  absl::Duration ttl;           // zero: none is asked for
  base::MonotonicTime arrived;  // when it reached this node, by Clock::SinceBoot
};

class Lease {
 public:
  // Starts the guard, or finds it running; called with an armed page.
  using StartGuard = std::function<absl::Status(const pg::LeasePage&)>;

  // A page that cannot be opened makes every lease impossible (Grant, Renew: its error), and one
  // that the term store knows of run out. `start_guard` may be empty in tests: no guard.
  Lease(const std::string& page_path, StartGuard start_guard, base::Clock& clock);

  // The lease in `record`, its ttl counted from `arrived`; one that its term has is renewed. The
  // guard watches when this is OK; otherwise nothing more than before is enforced. Errors as Renew.
  absl::Status Grant(const TermRecord& record, base::MonotonicTime arrived);
  // The same for a lease that runs. FAILED_PRECONDITION LEASE_EXPIRED when it has run out or the
  // guard has fired; UNAVAILABLE when the new ttl has passed since `arrived`, with nothing changed.
  absl::Status Renew(const TermRecord& record, base::MonotonicTime arrived);

  // Whether the lease of `term` has run out: from ordered_stop on, and for ever.
  bool Over(uint64_t term) const;
  // Until the ordered stop; nullopt when nothing is armed.
  std::optional<absl::Duration> UntilStop() const;
  // Until the deadline.
  absl::Duration Remaining() const;

  // Server processes are to be ended at a time, which has not come.
  bool armed() const;
  // That time; nullopt when nothing is armed.
  std::optional<base::MonotonicTime> KillTime() const;
  uint64_t term() const;  // of the page
  bool guard_fired() const;
  bool guarded() const;
  // Starts the guard again when somebody ended it.
  absl::Status EnsureGuard();
  // The server is no primary: whatever is started from now on is not to be ended.
  void Disarm();
  // The same, unless a lease was given or renewed since KillTime said `kill`.
  void DisarmAt(base::MonotonicTime kill);

 private:
  absl::Status NoPage() const;
  absl::Status CheckInTime(const TermRecord& record, base::MonotonicTime arrived) const;

  base::Clock& clock_;
  const StartGuard start_guard_;
  absl::Status page_error_;
  std::unique_ptr<pg::LeasePage> page_;         // null: page_error_
  mutable std::atomic<uint64_t> over_term_{0};  // the highest term whose lease was seen to be over
  base::Mutex mutex_;                           // orders the calls
  base::MonotonicTime counted_ ABSL_GUARDED_BY(mutex_);  // arrival of the call that counts
};

}  // namespace metal::node
