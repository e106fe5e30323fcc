// What a disk does, by /sys/block/X/stat and inflight once a second, without asking the drive:
// throughput, requests, latency; and whether it does anything at all.
// Source: the kernel's Documentation/block/stat.rst. Sectors are of 512 bytes, times in ms.
// Threading: pure functions; BlockStatJudge is not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/tick_guard.h"

namespace metal::disk {

// Counters since boot. Discards and flushes are 0 where the kernel does not count them.
struct BlockStat {
  uint64_t reads = 0, read_sectors = 0;
  absl::Duration read_time;
  uint64_t writes = 0, write_sectors = 0;
  absl::Duration write_time;
  uint64_t in_flight = 0;
  absl::Duration busy;  // time with something in flight
  uint64_t discards = 0;
  uint64_t flushes = 0;
  absl::Duration flush_time;

  uint64_t completions() const { return reads + writes + discards + flushes; }
};

// `stat` has 11, 15 or 17 numbers; nullopt when it has fewer.
std::optional<BlockStat> ParseBlockStat(std::string_view text);
// "reads writes" → their sum.
std::optional<uint64_t> ParseInflight(std::string_view text);

// One interval.
struct BlockActivity {
  base::MonotonicTime time;  // its end
  absl::Duration interval;
  double read_bytes_per_second = 0, write_bytes_per_second = 0;
  double reads_per_second = 0, writes_per_second = 0, flushes_per_second = 0;
  // Of the requests that completed; nullopt when there were none.
  std::optional<absl::Duration> read_latency, write_latency, flush_latency;
  double busy = 0;  // share of the interval with something in flight, 0 to 1
  uint64_t in_flight = 0;
  absl::Duration frozen;  // for how long something is in flight and nothing completed
  double completions_per_second = 0;
  absl::Duration
      crawling;  // for how long the last of those in flight has more than a stall to wait
  double bytes_per_second() const { return read_bytes_per_second + write_bytes_per_second; }
};

class BlockStatJudge {
 public:
  // Stalled after `stalled_after` without a completion while requests wait. Intervals longer than
  // `longest_gap` (the agent or its machine slept) say nothing of the disk.
  explicit BlockStatJudge(std::string disk, absl::Duration stalled_after = absl::Seconds(3),
                          absl::Duration longest_gap = absl::Seconds(5))
      : disk_(std::move(disk)), stalled_after_(stalled_after), guard_(longest_gap) {}

  // `in_flight` is that of the file inflight, where there is one. Evidence: "stalled" once it is
  // so, again every `stalled_after` while it lasts, and `clears` when requests complete again.
  std::optional<Evidence> Observe(const BlockStat& stat, std::optional<uint64_t> in_flight,
                                  base::MonotonicTime now, absl::Time time);
  // nullopt before the second sample, and after a gap or a counter that went backwards (another
  // disk has the name now).
  const std::optional<BlockActivity>& activity() const { return activity_; }

 private:
  std::optional<Evidence> Stalled(const BlockActivity& activity, absl::Time time);

  const std::string disk_;
  const absl::Duration stalled_after_;
  TickGuard guard_;
  std::optional<BlockStat> last_;
  base::MonotonicTime last_time_;
  base::MonotonicTime alive_;  // when it last had nothing to do or completed something
  base::MonotonicTime moves_;  // when what waits was last to be done within stalled_after_
  std::optional<BlockActivity> activity_;
  absl::Duration told_;  // how long it had been frozen when that was told; zero: it was not
};

}  // namespace metal::disk
