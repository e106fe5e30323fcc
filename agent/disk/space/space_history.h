// How much of a file system was used during the last week, and how it grows.
// Steady growth is told from bursts in three steps: of each 10 minutes the least use counts, so
// that temporary files and WAL that the next checkpoint removes do not; the time looked at is cut
// into eighths, and of each its median counts; the growth is the median of the steps from one
// eighth to the next, so that one jump (a load, a backup on the same disk) is no trend.
// It survives restarts through Encode and Decode; what was not observed is a gap, and with too
// little of it known the answer is "not known".
// Threading: not thread-safe; no I/O and no clock.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"

namespace metal::disk {

class SpaceHistory {
 public:
  // True: an interval has ended, so that there is more to keep than before. Times before what is
  // known (a clock that was set back) make it forget what is after them.
  bool Add(absl::Time time, uint64_t used_bytes);

  // Steady growth in bytes per second during the last 8 hours, of which 2 must be known; and during
  // the last week, of which a day must be known. nullopt: not known yet.
  std::optional<double> RecentGrowth() const;
  std::optional<double> LongGrowth() const;
  // The most that was used before the last 8 hours; nullopt: not known.
  std::optional<uint64_t> FormerPeak() const;

  // One line of text, without a line break.
  std::string Encode() const;
  // What Encode made, and nothing for other text.
  static SpaceHistory Decode(std::string_view text);

 private:
  using Interval = std::pair<int64_t, uint64_t>;  // number since the epoch, least use in bytes
  std::optional<double> Growth(int64_t window, int64_t least) const;

  std::deque<Interval> ended_;  // ascending, at most a week
  std::optional<Interval> open_;
};

// Until `free_bytes` are taken at that growth; nullopt when it does not grow, or not within 10
// years.
std::optional<absl::Duration> TimeUntilFull(uint64_t free_bytes,
                                            const std::optional<double>& growth);

}  // namespace metal::disk
