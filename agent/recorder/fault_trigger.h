// FaultTrigger: takes a capture when the event log says that a fatal fault of a disk is confirmed
// (fatal_fault.h).
// Threading: thread-safe; Saw does not block.
#pragma once

#include "agent/base/mutex.h"
#include "agent/observe/event_log.h"
#include "agent/recorder/diagnostics.h"

namespace metal::recorder {

class FaultTrigger {
 public:
  void Saw(const observe::Event& event);
  // Who captures from now on; null: nobody. It outlives this, or the next call.
  void SetDiagnostics(Diagnostics* diagnostics);

 private:
  base::Mutex mutex_;
  Diagnostics* diagnostics_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace metal::recorder
