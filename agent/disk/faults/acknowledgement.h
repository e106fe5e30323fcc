// An operator's word that a fault is over or understood. It counts in no decision then, and counts
// again when more speaks for it than at that moment: a new line of a log, a counter that grew,
// another witness, or enough of them to confirm it. Threading: plain values and pure functions.
#pragma once

#include <set>
#include <string>

#include "absl/time/time.h"
#include "agent/disk/faults/fault_book.h"

namespace metal::disk {

struct Acknowledgement {
  std::string fault_class, subject;
  std::string device, serial;       // of the drive that it was said of; empty: not known
  bool confirmed = false;           // the fault was
  std::set<std::string> witnesses;  // that had spoken by then
  std::string caller, reason;
  absl::Time time;
  friend bool operator==(const Acknowledgement&, const Acknowledgement&) = default;
};

// Whether the fault, as it is now, is more than what was acknowledged.
bool Outgrows(const DiskFault& fault, const Acknowledgement& acknowledged);

// Whether a witness sees it at present: a state, or an event of the last ten minutes.
bool IsLive(const DiskFault& fault, absl::Time now);

}  // namespace metal::disk
