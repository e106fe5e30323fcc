// ProbeSampler: once a second puts into the recorder what the probes of each role measured since.
// Threading: a thread of its own, which calls `look`; `look` reads memory alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/observe/histogram.h"
#include "agent/recorder/recorder.h"

namespace metal::recorder {

// One role ("data", "wal", …) since it was last looked at.
struct ProbeSample {
  std::string role;
  observe::LatencySummary read, write;  // of what came back in time or late, without errors
  uint64_t errors = 0, late = 0;        // since the prober began
  std::optional<absl::Duration> oldest_outstanding;
};

// Latencies of one role over minutes, for a histogram.
struct ProbeHistogram {
  std::string role;
  bool writes = false;
  std::vector<std::pair<absl::Duration, uint64_t>> buckets;  // upper edge, count; ascending
};

class ProbeSampler {
 public:
  using Look = std::function<std::vector<ProbeSample>()>;
  // What `look` uses outlives this.
  ProbeSampler(std::shared_ptr<Recorder> recorder, Look look,
               absl::Duration interval = absl::Seconds(1));
  ~ProbeSampler();
  ProbeSampler(const ProbeSampler&) = delete;
  ProbeSampler& operator=(const ProbeSampler&) = delete;

 private:
  void Run();

  const std::shared_ptr<Recorder> recorder_;
  const Look look_;
  const absl::Duration interval_;
  base::Mutex mutex_;
  base::CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  base::Thread thread_;  // last: begins when all else is there
};

// The record of one sample.
void PutSample(Recorder& recorder, const ProbeSample& sample);

}  // namespace metal::recorder
