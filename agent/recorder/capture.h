// Capture: writes everything that tells what happened on this node into one archive. Each part that
// may hang with a disk is read with a deadline; where one is missed, a file says so in its place.
// What is on the data disk is not even asked for while the disk is known to stall; of the settings
// there is a copy for that.
// Files: README.txt, timeline.html, status.json, versions.json, histograms.json, events.jsonl,
// records-NNNN.jsonl, kernel.txt, postgres.log, settings/*, agent.toml, manifest.json.
// Threading: one thread for each capture.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/config.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "agent/recorder/archive.h"
#include "agent/recorder/kernel_log.h"
#include "agent/recorder/patience.h"
#include "agent/recorder/probe_sampler.h"
#include "agent/recorder/recorder.h"
#include "agent/recorder/redact.h"
#include "agent/recorder/settings_copy.h"

namespace metal::recorder {

// Takes a text of the status by the name of its field; gives what may be shown of it.
using CleanText = std::function<std::string(std::string_view name, std::string_view text)>;

// Where a capture gets its parts. The references outlive all captures; what is shared may be left
// behind with a thread that hangs.
struct CaptureParts {
  const base::AgentConfig& config;
  observe::StatusBoard& board;
  base::Clock& clock;  // outlives the process
  std::shared_ptr<observe::EventLog> events;
  std::shared_ptr<Recorder> recorder;
  std::string postgres_log;  // path
  // The status as JSON, each text through `clean`.
  std::function<std::string(const observe::NodeStatus& status, const CleanText& clean)> status_json;
  std::function<std::vector<ProbeHistogram>()> histograms;  // from memory alone; may be null
  // The kernel's log, newest last; owns what it uses. See KernelLogReader.
  ReadKernelLog kernel_log;
  std::function<void()> before;  // a last look at things, bounded; may be null
  std::map<std::string, std::string> versions;
  // What to show of the settings when their disk cannot be asked; may be null.
  std::shared_ptr<const SettingsCopy> settings = nullptr;
};

struct CaptureRequest {
  std::string reason;                          // for people; empty: somebody asked
  absl::Duration window;                       // records and events no older than this; zero: all
  std::function<bool()> stop = nullptr;        // true: nobody waits for it any more
  absl::Duration patience = absl::Seconds(3);  // for each part that needs a disk
};

struct CaptureSummary {
  std::string directory;  // what all names in the archive begin with
  std::vector<std::string> files;
  std::map<std::string, std::string> missing;  // name → why
  uint64_t records = 0;
};

// CANCELLED when request.stop said so; else errors of the sink alone.
absl::StatusOr<CaptureSummary> WriteCapture(const CaptureParts& parts, PatientCalls& calls,
                                            const CaptureRequest& request, const ByteSink& sink);

}  // namespace metal::recorder
