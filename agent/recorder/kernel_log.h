// The kernel's log as a text: what /dev/kmsg has in its memory at the moment.
// Source: Linux Documentation/ABI/testing/dev-kmsg. Threading: pure functions, and one that reads
// memory of the kernel and waits for no disk.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace metal::recorder {

// "6,339,5140900,-;nvme nvme0: I/O timeout\n SUBSYSTEM=…" → "[    5.140900] <6> nvme nvme0: I/O
// timeout\n"; empty for what is no record.
std::string KernelLogLine(std::string_view record);

using ReadKernelLog = std::function<absl::StatusOr<std::string>()>;

// Opens the log now, before privileges are dropped: where it is restricted (kernel.dmesg_restrict)
// opening needs CAP_SYSLOG, reading does not. The answer reads at most the newest 1 MiB each time,
// or gives the error of the opening; one call at a time.
ReadKernelLog KernelLogReader();

}  // namespace metal::recorder
