// Plays one case of the slow-disk corpus to the detectors of a shard's three members, who tell each
// other their excess one second late. Threading: pure function.
#pragma once

#include <optional>

#include "tests/harness/slow_corpus.h"

namespace metal::testing {

struct SlowReplay {
  // Seconds from the slowness's begin to the alert; nullopt: not found while it lasted.
  std::optional<int> alert_after;
  double factor = 1;  // as told at the end of the slowness
  // Seconds from the slowness's end until the detector says normal; nullopt: not within the case.
  std::optional<int> clear_after;
  int false_alarms = 0;    // of all judged members, outside of the slowness
  double drive_hours = 0;  // judged
};

SlowReplay ReplaySlowCase(const SlowCase& slow_case, const disk::SlowLimits& limits = {});

}  // namespace metal::testing
