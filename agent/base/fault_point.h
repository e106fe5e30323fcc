// Named steps at which a test can make the process die, stall or fail: how "killed at every step"
// is tested. Off unless METAL_FAULT_POINTS is in the environment at start; then each passed point
// is one map look-up.
//   METAL_FAULT_POINTS="backup.before_publish=crash;restore.file=error@3;pg.start=pause"
// crash: SIGKILL to the process. error: INTERNAL "fault point NAME". pause: waits until the file
// named by METAL_FAULT_PAUSE_FILE is not there. "@N": at the Nth pass alone; without it crash and
// error act at the first pass, pause at each.
// METAL_FAULT_TRACE=FILE appends each new point's name once. Threading: any thread.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace metal::base {

// Names are "<module>.<step>", lower case. Unknown names in the environment are ignored.
absl::Status FaultPoint(std::string_view name);

}  // namespace metal::base
