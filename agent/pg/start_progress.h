// Judges a server's start by progress, never by a flat timeout: a long crash recovery is fine as
// long as it moves. Evidence: REDO and minimum recovery position in pg_control, CPU and I/O of the
// startup process. Threading: the tracker is pure state of one thread; the sampler reads procfs and
// the data disk.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/units.h"
#include "agent/pg/process.h"

namespace metal::pg {

struct StartSample {
  base::MonotonicTime at;
  base::Lsn redo, min_recovery;
  base::TimelineId timeline = 0;
  std::string control_state;
  pid_t startup_pid = 0;          // 0: not found
  absl::Duration startup_cpu;     // of the startup process, or of the postmaster before it exists
  uint64_t startup_io_bytes = 0;  // read and written through system calls
  std::string activity;  // title of the startup process: "recovering 000000010000000000000007"
};

class StartProgressTracker {
 public:
  // Moves that count as progress between two marks; less is the idle polling of a standby without a
  // source.
  static constexpr absl::Duration kCpuStep = absl::Milliseconds(200);
  static constexpr uint64_t kIoStep = 1 << 20;

  explicit StartProgressTracker(absl::Duration no_progress_limit);
  // REQUIRES: samples in the order of time.
  void Observe(const StartSample& sample);
  // Since the last sample that showed progress; zero before the first.
  absl::Duration idle() const;
  bool exhausted() const { return idle() >= limit_; }
  // "redo 0/3000028, minimum recovery 0/5A00000, cpu 1.2s, read 34 MiB, recovering 0000…: last
  // progress 3s ago".
  std::string Describe() const;

 private:
  const absl::Duration limit_;
  std::optional<StartSample> mark_;  // at the last progress
  std::optional<StartSample> latest_;
};

class StartSampler {
 public:
  StartSampler(std::string data_dir, base::Clock& clock);
  // What cannot be read keeps its earlier value. `postmaster` is the live postmaster's pid.
  StartSample Sample(pid_t postmaster);

 private:
  const std::string data_dir_;
  base::Clock& clock_;
  StartSample last_;
};

}  // namespace metal::pg
