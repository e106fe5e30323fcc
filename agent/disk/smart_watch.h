// SmartWatch: the latest SMART state of each disk; raises and clears the faults of critical
// warnings.
// Threading: thread-safe. Refresh is called by one thread, and waits up to 500 ms for each drive.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/disk/inventory.h"
#include "agent/disk/privileged.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::disk {

class SmartWatch {
 public:
  // `helper` may be null: every disk is then unsupported. All of them outlive the watch.
  SmartWatch(observe::StatusBoard& board, observe::EventLog& events, PrivilegedHelper* helper,
             base::Clock& clock)
      : board_(board), events_(events), helper_(helper), clock_(clock) {}

  // Asks one drive. A drive that answered before and does not now keeps what it said, with the
  // reason; another drive under the same name starts anew.
  void Refresh(const DiskInfo& disk);
  // Drops what is known of disks that are not in use any more, with their faults: a disk that was
  // taken out must not go on as healthy, or as faulty. Called by the thread that calls Refresh.
  void ForgetOthers(const std::set<std::string>& names);
  // By disk name.
  std::map<std::string, observe::SmartSection> Sections();

 private:
  void Forget(const std::string& disk);
  observe::SmartSection Ask(const DiskInfo& disk);
  void ReflectFaults(const std::string& disk, const observe::SmartSection& smart);
  void Tell(const char* type, observe::Severity severity, const std::string& disk,
            const std::string& message);

  observe::StatusBoard& board_;
  observe::EventLog& events_;
  PrivilegedHelper* const helper_;
  base::Clock& clock_;
  // By disk; Refresh's own.
  std::map<std::string, std::set<std::string>> raised_;
  std::map<std::string, std::string> serials_;
  base::Mutex mutex_;
  std::map<std::string, observe::SmartSection> sections_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::disk
