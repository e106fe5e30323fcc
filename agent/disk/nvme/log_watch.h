// LogWatch: asks drives for the logs that they have, as often as each is worth, and hands what they
// say for faults to a sink.
// What is asked: SMART at each Refresh; the error log when SMART counts a new entry; Amazon's log
// at each Refresh; OCP's once a minute; self-tests and the identity every 10 minutes; persistent
// events once a day. A drive is asked only for what it says that it has (OACS, LPA, log 00h):
// each refusal counts as an error of the drive. Drives older than NVMe 2.0 cannot announce OCP's
// log: options.unlisted_logs asks physical ones once, and not again when they refuse.
// Threading: thread-safe; Refresh and ForgetOthers are called by one thread, which calls the sink.
#pragma once

#include <bitset>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/inventory.h"
#include "agent/disk/nvme/drive_counters.h"
#include "agent/disk/nvme/drive_logs.h"
#include "agent/disk/nvme/log_judge.h"
#include "agent/disk/nvme/log_reader.h"
#include "agent/disk/privileged.h"

namespace metal::disk {

struct WatchedDrive {
  std::string disk;         // "nvme0n1"
  std::string controller;   // "nvme0"; empty: no NVMe drive, its identity alone is judged
  DriveIdentity identity;   // as the kernel has it
  uint32_t name_space = 0;  // 0: not known
  // Of the drive that should be here; nullopt: the one that this watch saw first under the name.
  std::optional<DriveIdentity> noted;
};

// The drive as sysfs describes it; `nsid` is read there and issues no command.
WatchedDrive WatchedDriveOf(const SysRoots& roots, const DiskInfo& disk);

struct LogWatchOptions {
  // For one drive at one Refresh. Logs that find no time are asked for at the next.
  absl::Duration time = absl::Milliseconds(500);
  absl::Duration vendor_interval = absl::Minutes(1);
  absl::Duration self_test_interval = absl::Minutes(10);
  absl::Duration identity_interval = absl::Minutes(10);
  absl::Duration events_interval = absl::Hours(24);
  bool unlisted_logs = false;
  // Is told of each reading whose counters differ from those of the one before; may be null.
  CounterSink counters = nullptr;
};

struct DriveReport {
  DriveLogs logs;
  // Why SMART was not answered at the last Refresh; empty: it was. `logs` are then those before.
  std::string unavailable;
};

class LogWatch {
 public:
  using Sink = std::function<void(Evidence)>;

  // `helper` may be null: no log is read then. All of them outlive the watch.
  LogWatch(PrivilegedHelper* helper, base::Clock& clock, Sink sink, LogWatchOptions options = {});

  // Asks one drive. Blocks for options.time, or 100 ms more when the persistent events were being
  // read. A drive that does not answer keeps what it said, and says nothing new.
  void Refresh(const WatchedDrive& drive);

  // Drops drives that are not in use any more, and takes back what stood against them.
  void ForgetOthers(const std::set<std::string>& disks);

  // By disk name.
  std::map<std::string, DriveReport> Reports() const;

 private:
  struct Drive {
    explicit Drive(const std::string& disk) : judge(disk) {}
    DriveLogs logs;
    LogJudge judge;
    DriveIdentity first;
    std::bitset<256> refused;                      // logs that the drive does not have
    bool lists_its_logs = false;                   // and `refused` has all others
    std::map<uint8_t, base::MonotonicTime> asked;  // when a log was last asked for
    std::optional<base::MonotonicTime> identified;
    std::optional<uint64_t> errors_read;  // SMART's count when the error log was read
    bool lost = false;                    // did not answer the last time
  };

  bool IsDue(const Drive& drive, uint8_t log_id, absl::Duration interval) const;
  // Note what the answer to a log says about asking again. True: go on asking.
  bool Took(Drive& drive, uint8_t log_id, const absl::Status& status);
  absl::Status ReadLogs(const WatchedDrive& watched, Drive& drive);
  bool ReadIdentity(const WatchedDrive& watched, LogReader& reader, Drive& drive);
  bool ReadErrors(LogReader& reader, Drive& drive);
  void ReadOthers(LogReader& reader, Drive& drive);
  bool ReadVendors(LogReader& reader, Drive& drive);
  void TellCounters(const std::string& disk, const DriveLogs& before, const DriveLogs& now) const;
  void Withdraw(Drive& drive, const std::string& reason);

  PrivilegedHelper* const helper_;
  base::Clock& clock_;
  const Sink sink_;
  const LogWatchOptions options_;
  std::map<std::string, Drive> drives_;  // the refreshing thread's own
  mutable base::Mutex mutex_;
  std::map<std::string, DriveReport> reports_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::disk
