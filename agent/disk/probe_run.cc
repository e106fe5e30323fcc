#include "agent/disk/probe_run.h"

#include "agent/base/clock.h"
#include "agent/base/status.h"

namespace metal::disk {
namespace {

constexpr uint32_t kMaxReads = 100'000;
constexpr uint32_t kMaxWrites = 10'000;

}  // namespace

absl::StatusOr<StorageProbeResult> RunStorageProbe(DiskMonitor& monitor,
                                                   const StorageProbeOptions& options,
                                                   observe::Progress& progress) {
  if (options.reads > kMaxReads || options.writes > kMaxWrites ||
      options.reads + options.writes == 0) {
    return base::Error(
        absl::StatusCode::kInvalidArgument,
        "storage probe of {} reads and {} writes. HINT: 1 to {} reads, up to {} writes",
        options.reads, options.writes, kMaxReads, kMaxWrites);
  }
  METAL_ASSIGN_OR_RETURN(const std::shared_ptr<Prober> prober, monitor.FindProber(options.role));
  StorageProbeResult result;
  result.role = options.role;
  result.path = monitor.DirectoryOf(options.role);
  result.device = monitor.DiskOf(options.role);

  const uint64_t total = uint64_t{options.reads} + options.writes;
  progress.BeginPhase("probing", total * kProbeBlockSize);
  ProbeBurst burst;
  burst.reads = options.reads;
  burst.writes = options.writes;
  const base::MonotonicTime start = base::RealClock().Monotonic();
  METAL_RETURN_IF_ERROR(prober->RunBurst(burst, options.timeout, [&](uint32_t completed) {
    progress.SetDone(uint64_t{completed} * kProbeBlockSize);
    return !progress.cancelled();
  }));
  result.elapsed = base::RealClock().Monotonic() - start;
  result.read = burst.read;
  result.write = burst.write;
  result.read_errors = burst.read_errors;
  result.write_errors = burst.write_errors;
  result.last_error = burst.last_error;
  return result;
}

}  // namespace metal::disk
