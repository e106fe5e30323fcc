// Diagnostics: captures on demand, and by itself when a fatal fault of a disk is confirmed. Those
// of its own are files in a directory that is not on the data disk: <time>-<class>.tar.zst, the
// newest of them kept. A fault that an earlier agent confirmed and did not live to capture is taken
// at the start. Events: diagnostics.captured (attributes path, bytes, records, missing),
// diagnostics.failed.
// Threading: thread-safe. OnFatalFault does not block. One capture runs at a time. A directory
// whose disk hangs costs a thread that is left behind, nothing more.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/observe/status_board.h"
#include "agent/recorder/capture.h"

namespace metal::recorder {

struct DiagnosticsOptions {
  std::string directory;  // of captures that it takes by itself
  int kept = 5;           // zero: takes none by itself
  // From the fault to the capture: what the fault led to belongs in it.
  absl::Duration settle = absl::Seconds(10);
  // A further fault within it is on the record of the first capture, or of the next one.
  absl::Duration pause = absl::Minutes(10);
  // Between two copies of the settings for a capture whose disk cannot be asked, and while there is
  // none yet.
  absl::Duration settings_interval = absl::Minutes(1);
  absl::Duration first_settings = absl::Seconds(1);
};

class Diagnostics {
 public:
  Diagnostics(CaptureParts parts, DiagnosticsOptions options);
  ~Diagnostics();  // within 200 ms; a capture that runs is given up
  Diagnostics(const Diagnostics&) = delete;
  Diagnostics& operator=(const Diagnostics&) = delete;

  // ABORTED (reason CAPTURE_RUNNING) while another one runs; else as WriteCapture.
  absl::StatusOr<CaptureSummary> Capture(const CaptureRequest& request, const ByteSink& sink);
  // Captures soon, unless it did so within `pause`.
  void OnFatalFault(const observe::Fault& fault);

  Recorder& recorder() { return *parts_.recorder; }

 private:
  void Run();
  void TakeMissed();
  void CopySettings();
  void CaptureFault(const observe::Fault& fault);
  absl::StatusOr<CaptureSummary> CaptureToFile(const CaptureRequest& request,
                                               const std::string& path, uint64_t& bytes);
  void RemoveOld();
  bool stopping();

  const std::shared_ptr<SettingsCopy> settings_ = std::make_shared<SettingsCopy>();
  const CaptureParts parts_;
  const DiagnosticsOptions options_;
  PatientCalls calls_;
  base::Mutex running_;  // held by whoever captures
  base::Mutex mutex_;
  base::CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<observe::Fault> wanted_ ABSL_GUARDED_BY(mutex_);
  std::optional<base::MonotonicTime> last_ ABSL_GUARDED_BY(mutex_);
  base::Thread thread_;  // last: begins when all else is there
};

}  // namespace metal::recorder
