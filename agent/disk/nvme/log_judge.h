// LogJudge: what one drive's logs say for faults over time: when it begins, and when it ends.
// Threading: not thread-safe; no I/O, reads no clock.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/nvme/drive_logs.h"

namespace metal::disk {

class LogJudge {
 public:
  // A counter that has not grown for this long no longer speaks for its condition: some drives
  // count minutes.
  static constexpr absl::Duration kQuiet = absl::Minutes(3);

  explicit LogJudge(std::string device) : device_(std::move(device)) {}

  // Evidence of a state comes with each call as long as it holds, that of a counter when it grew;
  // `clears` comes once, when neither holds any more. `present.monotonic` never goes back.
  std::vector<Evidence> Judge(const DriveLogs& present);

  // `clears` for all that stands: the drive is not looked at any more, because of `reason`.
  std::vector<Evidence> Withdraw(const std::string& reason, absl::Time now);

 private:
  using Key = std::pair<FaultClass, Witness>;
  std::vector<Evidence> Ended(const DriveLogs& present);

  const std::string device_;
  std::optional<DriveLogs> previous_;
  std::map<Key, base::MonotonicTime> stands_until_;
};

}  // namespace metal::disk
