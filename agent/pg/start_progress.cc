#include "agent/pg/start_progress.h"

#include <utility>

#include "agent/base/proc.h"
#include "agent/pg/control_file.h"
#include "fmt/format.h"

namespace metal::pg {
namespace {

// "postgres: metal: startup recovering 000000010000000000000007" → "recovering 0000…"; nullopt: not
// the startup process.
std::optional<std::string> StartupActivity(const std::string& title) {
  if (!title.starts_with("postgres: ")) return std::nullopt;
  constexpr std::string_view kName = "startup";
  const size_t found = title.find(kName);
  if (found == std::string::npos || title[found - 1] != ' ') return std::nullopt;
  const size_t rest = found + kName.size();
  return rest + 1 < title.size() && title[rest] == ' ' ? title.substr(rest + 1) : std::string();
}

}  // namespace

StartProgressTracker::StartProgressTracker(absl::Duration no_progress_limit)
    : limit_(no_progress_limit) {}

void StartProgressTracker::Observe(const StartSample& sample) {
  latest_ = sample;
  const bool moved =
      !mark_ || sample.redo != mark_->redo || sample.min_recovery != mark_->min_recovery ||
      sample.timeline != mark_->timeline || sample.control_state != mark_->control_state ||
      sample.startup_pid != mark_->startup_pid || sample.activity != mark_->activity ||
      sample.startup_cpu - mark_->startup_cpu >= kCpuStep ||
      sample.startup_io_bytes >= mark_->startup_io_bytes + kIoStep;
  if (moved) mark_ = sample;
}

absl::Duration StartProgressTracker::idle() const {
  return mark_ ? latest_->at - mark_->at : absl::ZeroDuration();
}

std::string StartProgressTracker::Describe() const {
  if (!latest_) return "no sample yet";
  const StartSample& now = *latest_;
  return fmt::format(
      "{}, redo {}, minimum recovery {}, cpu {:.1f} s, i/o {}{}{}; last progress {:.0f} s ago",
      now.control_state.empty() ? "control file unknown" : now.control_state, now.redo.ToString(),
      now.min_recovery.ToString(), absl::ToDoubleSeconds(now.startup_cpu),
      base::ByteCount{now.startup_io_bytes}.ToString(), now.activity.empty() ? "" : ", ",
      now.activity, absl::ToDoubleSeconds(idle()));
}

StartSampler::StartSampler(std::string data_dir, base::Clock& clock)
    : data_dir_(std::move(data_dir)), clock_(clock) {}

StartSample StartSampler::Sample(pid_t postmaster) {
  StartSample sample = last_;
  sample.at = clock_.Monotonic();
  if (const absl::StatusOr<ControlFile> control = ReadControlFile(data_dir_); control.ok()) {
    sample.redo = control->redo;
    sample.min_recovery = control->min_recovery;
    sample.timeline = control->timeline;
    sample.control_state = std::string(ControlStateName(control->state));
  }
  pid_t watched = postmaster;
  sample.startup_pid = 0;
  sample.activity.clear();
  for (const pid_t pid : base::ListProcesses()) {
    const absl::StatusOr<base::ProcStat> stat = base::ReadProcStat(pid);
    if (!stat.ok() || stat->parent != postmaster) continue;
    const std::optional<std::string> activity = StartupActivity(base::ProcessCommandLine(pid));
    if (!activity) continue;
    watched = sample.startup_pid = pid;
    sample.activity = *activity;
    break;
  }
  if (const absl::StatusOr<base::ProcStat> stat = base::ReadProcStat(watched); stat.ok())
    sample.startup_cpu = stat->cpu;
  if (const absl::StatusOr<base::ProcIo> io = base::ReadProcIo(watched); io.ok()) {
    sample.startup_io_bytes = io->read_bytes + io->write_bytes;
  }
  last_ = sample;
  return sample;
}

}  // namespace metal::pg
