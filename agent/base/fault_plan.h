// The plan behind FaultPoint: which named steps do what at which pass. Source: fault_point.h
// describes the text. Threading: thread-safe.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "agent/base/mutex.h"

namespace metal::base {

class FaultPlan {
 public:
  // `points` as in METAL_FAULT_POINTS; entries that cannot be read are left out. Empty file names:
  // no pause, no trace.
  FaultPlan(std::string_view points, std::string pause_file, std::string trace_file);

  // True when Pass can do anything.
  bool active() const { return !rules_.empty() || !trace_file_.empty(); }

  // Passes the point `name`: counts, traces, then dies, waits, fails or answers OK.
  absl::Status Pass(std::string_view name);

 private:
  enum class Action { kCrash, kError, kPause };
  struct Rule {
    Action action;
    int at_pass = 1;  // the pass at which it acts; 0: at each
    int passes = 0;
  };
  static bool ParseRule(std::string_view text, Rule& rule);
  void Trace(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WaitForRemovalOfPauseFile() const;

  const std::string pause_file_;
  const std::string trace_file_;
  Mutex mutex_;
  std::map<std::string, Rule, std::less<>> rules_;  // keys never change after construction
  std::set<std::string, std::less<>> traced_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::base
