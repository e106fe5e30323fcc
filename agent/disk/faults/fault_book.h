// FaultBook: weighs evidence by the fault table. One fault for each class and disk, or for each
// class and role of a file system; it is suspected until enough witnesses agree, confirmed from
// then on, and ends as its row says.
// No I/O and no clock: time comes with each call. Bounded by what sources know of: a few faults for
// each disk of the node.
// Threading: not thread-safe; its owner locks.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/base/clock.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/faults/fault_table.h"

namespace metal::disk {

struct DiskFault {
  FaultClass fault_class = FaultClass::kStalled;
  std::string subject;  // "<disk>", "<disk>:<role>" of a file system; the role of an unknown disk
  std::string device;   // kernel name; empty while unknown
  std::set<std::string> roles;  // that evidence named; empty: all of the disk's
  bool confirmed = false;
  absl::Time first_seen, last_seen;
  std::vector<Evidence> evidence;  // the latest of each witness that counts, in order of Witness
};

enum class FaultNews : uint8_t {
  kSuspected,
  kConfirmed,
  kMore,  // the same verdict, with other evidence
  kCleared
};
struct FaultChange {
  FaultNews news = FaultNews::kSuspected;
  DiskFault fault;  // of kCleared: as it was
};

class FaultBook {
 public:
  // One observation, at monotonic time `now`, which never goes backwards. A fault that it confirms
  // at once gives kConfirmed alone. Errors of I/O to a device that is gone, also of the moment
  // before that was known, are evidence of that. A probe's EIO from a file system that others say
  // is shut down is evidence of the shutdown; one of a read says then nothing of the medium.
  std::vector<FaultChange> Take(const Evidence& evidence, base::MonotonicTime now);
  // Ends what has been quiet for as long as its row wants; to be called every second or so.
  std::vector<FaultChange> Expire(base::MonotonicTime now);
  // The disk is not in use any more: its faults end.
  std::vector<FaultChange> Forget(const std::string& device);
  // The role's directory is not watched any more: what was seen of it alone counts no more.
  std::vector<FaultChange> ForgetRole(const std::string& role);
  std::vector<DiskFault> faults() const;

 private:
  using Key = std::pair<FaultClass, std::string>;  // class and subject
  struct Testimony {
    Evidence latest;
    base::MonotonicTime last;
    bool firm = false;                          // something that is no hearsay
    std::deque<base::MonotonicTime> sightings;  // firm ones; at most row.sightings
  };
  struct Entry {
    DiskFault fault;
    base::MonotonicTime first;
    std::map<Witness, Testimony> testimonies;
  };

  static void Refresh(Entry& entry);
  static bool IsConfirmed(const FaultRow& row, const Entry& entry, base::MonotonicTime now);
  // The faults that a drive's removal looked like until it was known; they end.
  std::vector<FaultChange> TakeOverAsGone(const std::string& device, base::MonotonicTime now);
  std::vector<FaultChange> TakeAsGone(const Evidence& evidence, const Entry& gone,
                                      base::MonotonicTime now);
  std::vector<FaultChange> TakeAsIs(const Evidence& evidence, base::MonotonicTime now);
  // A probe's EIO, where others than probes say that the file system under its role is shut down.
  bool IsShutDownBelow(const Evidence& evidence) const;
  std::vector<FaultChange> Withdraw(const Evidence& evidence);

  std::map<Key, Entry> entries_;
};

// A log says that something happened and never that it is over; neither does a counter. The others
// tell of states.
bool TellsOfAnEvent(const Evidence& evidence);

// "nvme0n1 media_error, confirmed by probe, kernel_log: …", for people, with the row's hint.
std::string FaultMessage(const DiskFault& fault);

}  // namespace metal::disk
