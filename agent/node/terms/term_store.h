// The durable term of this node: the highest term that it promised to follow, the role it was
// given, and its fence. Kept in state_dir/term, which belongs on a device other than the data disk:
// a promise must outlive the disk it protects. Format: text lines "key=value" that end with a
// CRC-32C line (term_record.h); replaced with WriteFileDurably. Threading: thread-safe. Get() never
// waits for the disk; a change holds one mutex while it writes. After each change that returned OK
// the new record is on the disk and published to the status board; after an error the old one
// counts here, and the disk holds either of the two: what was refused to be promised may still be
// found promised after a restart, never the reverse. One thing does not wait for the disk:
// FenceNow, whose fence counts in memory and in a file on tmpfs at once, and is stored when the
// disk lets it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/node/terms/lease.h"
#include "agent/node/terms/term_record.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::node {

struct TermPlaces {
  TermPlaces(std::string file, std::string in_memory = "")  // NOLINT: a path alone will do
      : path(std::move(file)), memory(std::move(in_memory)) {}
  std::string path;
  // On a file system in memory, where it outlives the agent but not the host: a fence that may not
  // have reached `path`. Empty: nowhere.
  std::string memory;
};

class TermStore {
 public:
  // Reads the file; a missing one means term 0, standby, not fenced. A file that cannot be read or
  // has the wrong checksum is kept, and the node comes up fenced ("term store unreadable") until an
  // orchestrator begins a term and unfences it. Never fails for the file's sake: an agent that does
  // not start helps nobody. A fence in places.memory counts beside what the file says, and one that
  // cannot be read is one. `board` and `events` outlive the store.
  static std::unique_ptr<TermStore> Open(TermPlaces places, base::Clock& clock,
                                         observe::StatusBoard& board, observe::EventLog& events);

  // Before anything else is asked; outlives the store. Without one no lease can be given, and one
  // that is stored has run out.
  void AttachLease(Lease& lease);

  // With a lease that has run out marked so, also when that is not stored yet.
  TermRecord Get() const;
  const std::string& path() const { return state_->path; }

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

  // The same, and it counts when this returns, whatever the disk of the store does, also while
  // another change hangs in it: in memory, in the file on tmpfs, and in the background on the disk.
  // For a node that fences itself. Errors as BeginTerm; the file on tmpfs that cannot be written is
  // an event (term.fence_not_in_memory), no error.
  absl::Status FenceNow(const TermHolder& who, const std::string& reason);
  // Writes such a fence again when the disk refused it; to be called every second or so. Does not
  // block.
  void KeepFence();
  // False: the fence that counts is not on the disk of the store (yet).
  bool FenceIsStored() const;

  // Lifts the fence: `who` must be the holder of the stored term, and its term at least the
  // fence's. The role stays standby. OK when there is no fence. An error of the file on tmpfs: the
  // fence is lifted until the agent starts again.
  absl::Status Unfence(const TermHolder& who);

  // Warns when the store (event term.same_device), or the place of a fence in memory
  // (term.fence_same_device), is on the device of a directory of the database.
  void WarnIfOnSameDevice(const std::string& data_directory, dev_t data_device);

 private:
  // What a write that hangs in the disk may outlive the store with.
  struct State {
    explicit State(std::string file) : path(std::move(file)) {}
    const std::string path;
    base::Mutex write_mutex;  // serializes changes; held while writing; before mutex
    // The file on the disk is kept as evidence at the first change.
    bool unreadable ABSL_GUARDED_BY(write_mutex) = false;
    base::Mutex mutex;
    TermRecord record ABSL_GUARDED_BY(mutex);
    // A fence that counts, and is not known to be on the disk.
    std::optional<TermRecord> unstored ABSL_GUARDED_BY(mutex);
    bool storing ABSL_GUARDED_BY(mutex) = false;  // a thread is on its way to the disk with it
    std::optional<base::MonotonicTime> tried ABSL_GUARDED_BY(mutex);  // when it left last

    // What counts: the record, with that fence.
    TermRecord Merged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
    // Writes and, once durable, adopts the record. `now` names evidence.
    absl::Status Write(const TermRecord& next, absl::Time now)
        ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex);
  };

  TermStore(TermPlaces places, base::Clock& clock, observe::StatusBoard& board,
            observe::EventLog& events);
  void Load();
  // Adds the fence of the file on tmpfs, if any. True: it counts, and the disk does not have it.
  bool LoadMemory(TermRecord& record);
  // Writes and, once durable, adopts and publishes the record.
  absl::Status StoreLocked(TermRecord next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->write_mutex);
  void Publish(const TermRecord& record);
  void PublishLease(const TermRecord& record);
  absl::Status GrantLease(const TermRecord& next, base::MonotonicTime arrived);

  const std::string memory_path_;
  base::Clock& clock_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  Lease* lease_ = nullptr;
  const std::shared_ptr<State> state_;
};

}  // namespace metal::node
