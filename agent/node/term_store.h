// The durable term of this node: the highest term that it promised to follow, the role it was
// given, and its fence. Kept in state_dir/term, which belongs on a device other than the data disk:
// a promise must outlive the disk it protects. Format: text lines "key=value" that end with a
// CRC-32C line (term_record.h); replaced with WriteFileDurably. Threading: thread-safe. Get() never
// waits for the disk; a change holds one mutex while it writes. After each change that returned OK
// the new record is on the disk and published to the status board; after an error the old one
// counts here, and the disk holds either of the two: what was refused to be promised may still be
// found promised after a restart, never the reverse.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/node/lease.h"
#include "agent/node/term_record.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::node {

class TermStore {
 public:
  // Reads the file; a missing one means term 0, standby, not fenced. A file that cannot be read or
  // has the wrong checksum is kept, and the node comes up fenced ("term store unreadable") until an
  // orchestrator begins a term and unfences it. Never fails for the file's sake: an agent that does
  // not start helps nobody. `board` and `events` outlive the store.
  static std::unique_ptr<TermStore> Open(std::string path, base::Clock& clock,
                                         observe::StatusBoard& board, observe::EventLog& events);

  // Before anything else is asked; outlives the store. Without one no lease can be given, and one
  // that is stored has run out.
  void AttachLease(Lease& lease);

  // With a lease that has run out marked so, also when that is not stored yet.
  TermRecord Get() const;
  const std::string& path() const { return path_; }

  // Promises to follow `who.term` and nothing lower. Higher than the stored term: stored, then OK.
  // Equal and from the same orchestrator: OK, nothing written. FAILED_PRECONDITION, reason
  // STALE_TERM (lower) or TERM_HELD (equal, another orchestrator), with stored_term and
  // orchestrator_id in the metadata. INVALID_ARGUMENT for term 0 or an empty orchestrator.
  absl::Status BeginTerm(const TermHolder& who);

  // OK when `who` is exactly the stored term and orchestrator: FAILED_PRECONDITION STALE_TERM,
  // TERM_HELD, or ROLE_TRANSITION (a term above the stored one: it has not begun here) otherwise.
  absl::Status CheckHolder(const TermHolder& who) const;

  // Stores the role under `who`, which must be the stored term's holder. FAILED_PRECONDITION reason
  // FENCED for kPrimary while a fence is active, LEASE_EXPIRED in a term whose lease ran out. A
  // primary's lease (no ttl: see ApplyRoleWanted) runs from `lease.arrived`; errors of
  // Lease::Grant.
  absl::Status SetRoleWanted(const TermHolder& who, observe::Role role,
                             const LeaseCall& lease = {});

  // Renews the primary's lease from `call.arrived` on; gives it one when it has none. Writes the
  // file only for a first lease and for another ttl. Errors of ApplyRenewLease and Lease.
  absl::Status RenewLease(const TermHolder& who, const LeaseCall& call);
  // Stores that the lease ran out and that the node is no primary any more. OK without one.
  absl::Status ExpireLease();

  // ApplyDemote, ApplyUndoDemote and ApplyFollow (term_record.h), durably.
  absl::Status Demote(const TermHolder& who);
  absl::Status UndoDemote(const TermHolder& who);
  absl::Status Follow(const TermHolder& who);
  // What Follow would refuse; stores nothing.
  absl::Status CheckNotStale(const TermHolder& who) const;

  // The data directory is about to be another one: an order to be primary was not for it. Needs no
  // term, for it only takes away. Durable when OK.
  absl::Status DropPrimaryRole();

  // Fences. A term higher than the stored one is begun in the same write. An active fence keeps its
  // `since`; its term rises. The role wanted becomes standby. Errors as BeginTerm.
  absl::Status Fence(const TermHolder& who, const std::string& reason);

  // Lifts the fence: `who` must be the holder of the stored term, and its term at least the
  // fence's. The role stays standby. OK when there is no fence.
  absl::Status Unfence(const TermHolder& who);

  // Warns (event term.same_device) when the store is on the device of the data directory.
  void WarnIfOnSameDevice(const std::string& data_directory, dev_t data_device);

 private:
  TermStore(std::string path, base::Clock& clock, observe::StatusBoard& board,
            observe::EventLog& events);
  void Load();
  // Writes and, once durable, adopts and publishes the record.
  absl::Status StoreLocked(TermRecord next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex_);
  void Publish(const TermRecord& record);
  void PublishLease(const TermRecord& record);
  absl::Status GrantLease(const TermRecord& next, base::MonotonicTime arrived);

  const std::string path_;
  base::Clock& clock_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  base::Mutex write_mutex_;  // serializes changes; held while writing; before mutex_
  Lease* lease_ = nullptr;
  mutable base::Mutex mutex_;
  TermRecord record_ ABSL_GUARDED_BY(mutex_);
  bool unreadable_ ABSL_GUARDED_BY(write_mutex_) =
      false;  // the file on the disk is kept as evidence at the first change
};

}  // namespace metal::node
