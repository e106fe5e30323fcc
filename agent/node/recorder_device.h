// Warns when the flight recorder lies on the disk whose end it is to tell of.
// Threading: waits for the recorder's disk, for 2 s at most.
#pragma once

#include <sys/types.h>

#include <string>

#include "agent/observe/event_log.h"

namespace metal::node {

// Event recorder.same_device when `recorder` (config recorder.directory, or where it will be made)
// is on `data_device`, the device of `data_directory`. A disk that does not answer is not compared.
void WarnIfRecorderOnDataDevice(const std::string& recorder, const std::string& data_directory,
                                dev_t data_device, observe::EventLog& events);

}  // namespace metal::node
