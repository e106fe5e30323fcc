// Puts what a drive's counters did into the flight recorder.
// Threading: thread-safe; does not block.
#pragma once

#include "agent/disk/nvme/drive_counters.h"
#include "agent/recorder/recorder.h"

namespace metal::node {

void RecordCounters(recorder::Recorder& recorder, const disk::CounterChanges& changes);

}  // namespace metal::node
