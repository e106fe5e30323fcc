#include "tools/metalctl/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "tools/metalctl/error.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/terminal.h"

namespace metal::ctl {
namespace {

namespace v1 = ::metal::agent::v1;

// 0 when the total is not known.
double Share(const v1::OperationProgress& progress) {
  if (progress.total_bytes() <= 0) return 0;
  return std::min(1.0, static_cast<double>(progress.done_bytes()) /
                           static_cast<double>(progress.total_bytes()));
}

}  // namespace

std::string ProgressLine(const v1::Operation& operation, int width) {
  const auto& progress = operation.progress();
  std::string line = operation.kind();
  if (!progress.phase().empty()) line += ": " + progress.phase();
  if (progress.total_bytes() <= 0) {
    return CutToWidth(line + "  " + FormatDuration(progress.phase_elapsed()), width);
  }
  const double share = Share(progress);
  std::string facts =
      fmt::format("{:3.0f}%  {} of {}", share * 100, FormatBytes(progress.done_bytes()),
                  FormatBytes(progress.total_bytes()));
  if (progress.bytes_per_second() > 0) facts += "  " + FormatRate(progress.bytes_per_second());
  if (progress.has_eta() && share < 1) facts += "  ETA " + FormatDuration(progress.eta());
  const int room = width - static_cast<int>(line.size() + facts.size()) - 6;
  if (room >= 10) {
    const auto bar = static_cast<size_t>(std::min(room, 40));
    const auto full = static_cast<size_t>(share * static_cast<double>(bar));
    line += "  [" + std::string(full, '#') + std::string(bar - full, '.') + "]";
  }
  return CutToWidth(line + "  " + facts, width);
}

std::string ProgressJson(const v1::Operation& operation) {
  const auto& progress = operation.progress();
  return fmt::format(
      R"({{"progress":{{"operation":{},"kind":{},"phase":{},"done_bytes":{},"total_bytes":{},)"
      R"("bytes_per_second":{:.0f},"eta_seconds":{}}}}})",
      JsonString(operation.name()), JsonString(operation.kind()), JsonString(progress.phase()),
      progress.done_bytes(), progress.total_bytes(), progress.bytes_per_second(),
      progress.has_eta() ? fmt::format("{:.1f}", ToSeconds(progress.eta())) : "null");
}

bool ProgressPacer::Deserves(const v1::Operation& operation, absl::Time now) {
  const auto& progress = operation.progress();
  if (progress.phase().empty()) return false;
  const double share = Share(progress);
  if (progress.phase() == phase_) {
    const absl::Duration since = now - *last_;
    if (since < absl::Seconds(1)) return false;
    if (share - share_ < 0.05 && since < absl::Seconds(30)) return false;
  }
  phase_ = progress.phase();
  share_ = share;
  last_ = now;
  return true;
}

ProgressDisplay::ProgressDisplay(bool json)
    : json_(json), terminal_(!json && isatty(STDERR_FILENO) != 0) {}

void ProgressDisplay::Show(const v1::Operation& operation) {
  if (terminal_) {
    // A phase that is over keeps its last line.
    if (operation.progress().phase() != phase_ && !line_.empty()) fmt::print(stderr, "\n");
    phase_ = operation.progress().phase();
    // The last column stays free: some terminals wrap when it is written.
    line_ = ProgressLine(operation, TerminalWidth(STDERR_FILENO) - 1);
    fmt::print(stderr, "\r\033[K{}", line_);
  } else if (pacer_.Deserves(operation, absl::Now())) {
    fmt::print(stderr, "{}\n", json_ ? ProgressJson(operation) : ProgressLine(operation, 0));
  }
  std::fflush(stderr);
}

void ProgressDisplay::ShowSilence(absl::Duration silence) {
  if (!terminal_) return;
  const std::string words =
      fmt::format("  no word from the agent for {:.0f} s", absl::ToDoubleSeconds(silence));
  const int width = TerminalWidth(STDERR_FILENO) - 1;
  const std::string line =
      CutToWidth(line_, std::max(1, width - static_cast<int>(words.size()) - 1)) + words;
  fmt::print(stderr, "\r\033[K{}", CutToWidth(line, width));
  std::fflush(stderr);
}

void ProgressDisplay::EndLine() {
  if (!line_.empty()) fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
  line_.clear();
}

}  // namespace metal::ctl
