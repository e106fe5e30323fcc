// FaultDesk: where all sources hand in their evidence. It weighs it (FaultBook), shows the verdicts
// in the status, with what operators acknowledged, and tells them as events:
//   disk.fault_suspected, disk.fault_confirmed, disk.fault_cleared
//     subject: the fault's; attributes: class, device, serial, roles, witnesses, seconds (since it
//     was first seen), fatal, reaction, and, where a witness has one, kernel_line.
//   disk.fault_acknowledged, disk.fault_counts_again
//     attributes: class, device, serial, caller, reason.
// Threading: thread-safe; no call waits for a disk. `board` and `events` outlive it; `clock`
// outlives the process.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/disk/faults/acknowledgement.h"
#include "agent/disk/faults/fault_book.h"
#include "agent/disk/faults/reaction_policy.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::disk {

// A disk of this node, for people.
struct DiskFacts {
  std::string serial, path;
  std::set<std::string> roles;
};

// Which faults of a class: that of the subject, those of the device, or the only one.
struct AcknowledgeRequest {
  std::string fault_class, subject, device;
  std::string caller, reason;
  bool force = false;  // although it is fatal and still seen
};

class FaultDesk {
 public:
  FaultDesk(observe::StatusBoard& board, observe::EventLog& events, base::Clock& clock)
      : board_(board), events_(events), clock_(clock) {}
  FaultDesk(const FaultDesk&) = delete;
  FaultDesk& operator=(const FaultDesk&) = delete;

  // Evidence without a time is of now.
  void Take(Evidence evidence);
  // To be called every second or so: ends what has been quiet for long enough.
  void Tick();
  // The disks that are in use, by kernel name, also those that are gone. Faults of others end, and
  // those of a drive whose name another one has now, by its serial number.
  void SetDisks(std::map<std::string, DiskFacts> disks);
  // A role is not watched any more: what only it has seen ends.
  void ForgetRole(const std::string& role);
  // What faults ask for in the status. Until then: what their rows want.
  void SetPolicy(ReactionPolicy policy);
  // What was done about a fault that is shown; of one that is over: no-op.
  void NoteAction(const std::string& fault_class, const std::string& subject,
                  const std::string& text);

  // They count in no decision from now on (acknowledgement.h); the faults as they are shown then.
  // NOT_FOUND names the faults that there are; FAILED_PRECONDITION: several of the class, or
  // FAULT_LIVE. Then nothing changed.
  absl::StatusOr<std::vector<observe::Fault>> Acknowledge(const AcknowledgeRequest& request);
  // Takes the last Acknowledge of these back: it could not be kept.
  void Withdraw(const std::vector<observe::Fault>& faults);
  // Those of before the agent's start, once. A fault that comes back as it was is acknowledged.
  void Restore(std::vector<Acknowledgement> acknowledged);
  std::vector<Acknowledgement> acknowledged() const;

 private:
  void Show(const std::vector<FaultChange>& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShowInStatus(const DiskFault& fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(const FaultChange& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Who knows only a directory speaks of the disk under it; empty while that is unknown.
  std::string DeviceOf(const std::string& role) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DiskFacts FactsOf(const DiskFault& fault) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  observe::Fault Shown(const DiskFault& fault) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those that the request means.
  absl::StatusOr<std::vector<DiskFault>> Find(const AcknowledgeRequest& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Null: it is not acknowledged.
  const Acknowledgement* AcknowledgementOf(const DiskFault& fault) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of the restored ones, some time after the start.
  void ForgetThoseThatStayedAway() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops the acknowledgement of one that is more than it was, or of another drive.
  void Reconsider(const DiskFault& fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellAcknowledged(const Acknowledgement& acknowledged, bool counts_again)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  observe::StatusBoard& board_;
  observe::EventLog& events_;
  base::Clock& clock_;
  mutable base::Mutex mutex_;
  FaultBook book_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, DiskFacts> disks_ ABSL_GUARDED_BY(mutex_);
  ReactionPolicy policy_ ABSL_GUARDED_BY(mutex_);
  // By class and subject, until the fault ends.
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> actions_
      ABSL_GUARDED_BY(mutex_);
  // By class and subject; also of faults that have not shown since the agent's start.
  std::map<std::pair<std::string, std::string>, Acknowledgement> acknowledged_
      ABSL_GUARDED_BY(mutex_);
  std::optional<base::MonotonicTime> restored_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::disk
