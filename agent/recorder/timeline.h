// Timeline: gathers from records what a person needs to see what happened, and makes one page of
// it: latency of the disks, events with the kernel's own lines, steps, operations, calls and
// pg_control on one axis of time. The page needs no network. Bounded: the newest of each are kept.
// Threading: not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/observe/status_board.h"
#include "agent/recorder/record.h"
#include "agent/recorder/redact.h"

namespace metal::recorder {

struct TimelineHead {
  std::string node, cluster, versions, reason;
  absl::Time captured;
  std::vector<observe::Fault> faults;
};

class Timeline {
 public:
  // `redactor` outlives this.
  explicit Timeline(const Redactor& redactor) : redactor_(redactor) {}

  void Add(const Record& record);
  std::string Page(const TimelineHead& head) const;

  static constexpr size_t kProbesMost = 10800;  // of one role: three hours
  static constexpr size_t kEventsMost = 5000;
  static constexpr size_t kLinesMost = 2000;
  static constexpr size_t kCountersMost = 2000;
  static constexpr size_t kCallsMost = 3000;
  static constexpr size_t kControlsMost = 500;
  static constexpr size_t kRolesMost = 32;

 private:
  void AddProbe(const Record& record);
  void AddEvent(const Record& record);
  void AddCounters(const Record& record);
  void AddKernelLine(const Record& record);
  void AddCall(const Record& record);

  const Redactor& redactor_;
  // Rows of JSON.
  std::map<std::string, std::deque<std::string>> probes_;  // by role
  std::deque<std::string> events_, lines_, counters_, calls_, controls_, starts_;
};

// The page's text; METAL_TIMELINE_DATA stands where its data goes.
extern const char kTimelinePage[];

}  // namespace metal::recorder
