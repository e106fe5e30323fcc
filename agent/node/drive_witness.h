// Puts what a drive's counters did, and what the kernel said of it, into the flight recorder.
// Threading: thread-safe; does not block.
#pragma once

#include "agent/disk/nvme/drive_counters.h"
#include "agent/disk/sources/line_repeats.h"
#include "agent/recorder/recorder.h"

namespace metal::node {

void RecordCounters(recorder::Recorder& recorder, const disk::CounterChanges& changes);
void RecordKernelLine(recorder::Recorder& recorder, const disk::KernelLine& line);

}  // namespace metal::node
