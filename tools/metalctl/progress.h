// How an operation's progress is shown, on standard error: a bar on a terminal, plain lines
// elsewhere, one JSON object a line with -o json. Threading: one thread.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "metal/agent/v1/operation.pb.h"

namespace metal::ctl {

// One line: bar, percent, done of total, rate, ETA, cut to `width` columns; 0: no bar and not cut.
std::string ProgressLine(const metal::agent::v1::Operation& operation, int width);

// {"progress":{"operation":…,"kind":…,"phase":…,"done_bytes":…,"total_bytes":…,"bytes_per_second":…,"eta_seconds":…}};
// eta_seconds is null when unknown, total_bytes 0.
std::string ProgressJson(const metal::agent::v1::Operation& operation);

// Which states deserve a line of their own where lines stay: a new phase at once; otherwise at most
// one a second, when 5 % more are done or 30 s have passed. Pure.
class ProgressPacer {
 public:
  bool Deserves(const metal::agent::v1::Operation& operation, absl::Time now);

 private:
  std::string phase_;
  double share_ = 0;
  std::optional<absl::Time> last_;
};

// Shows one state after another.
class ProgressDisplay {
 public:
  explicit ProgressDisplay(bool json);
  ~ProgressDisplay() { EndLine(); }
  void Show(const metal::agent::v1::Operation& operation);
  // The agent said nothing for this long.
  void ShowSilence(absl::Duration silence);
  // Removes the bar, before other words are printed.
  void EndLine();

 private:
  const bool json_;
  const bool terminal_;
  ProgressPacer pacer_;
  std::string phase_, line_;
};

}  // namespace metal::ctl
