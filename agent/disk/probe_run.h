// RunStorageProbe: a bounded one-shot measurement of one target through its prober: one request at
// a time (queue depth 1), 4 KiB random O_DIRECT reads, then 4 KiB O_DIRECT|O_DSYNC writes, on the
// probe file.
// Threading: any thread that may wait; the device can hang without the caller hanging.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/disk/disk_monitor.h"
#include "agent/observe/histogram.h"
#include "agent/observe/progress.h"

namespace metal::disk {

struct StorageProbeOptions {
  std::string role = "data";
  uint32_t reads = 1000;  // at most 100,000
  uint32_t writes = 200;  // at most 10,000
  absl::Duration timeout = absl::Seconds(60);
};

struct StorageProbeResult {
  std::string role, path, device;  // device: kernel name; empty when unknown
  observe::LatencySummary read, write;
  uint64_t read_errors = 0, write_errors = 0;
  std::string last_error;
  absl::Duration elapsed;
};

// Progress counts bytes read and written, phase "probing". Errors of single probes are in the
// result. INVALID_ARGUMENT (limits), NOT_FOUND (role), FAILED_PRECONDITION (the target cannot be
// probed, or a measurement is running already), CANCELLED, DEADLINE_EXCEEDED (with how many probes
// had come back).
absl::StatusOr<StorageProbeResult> RunStorageProbe(DiskMonitor& monitor,
                                                   const StorageProbeOptions& options,
                                                   observe::Progress& progress);

}  // namespace metal::disk
