#include "agent/flight_recorder.h"

#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/node/drive_witness.h"
#include "agent/recorder/recorded_events.h"
#include "agent/rpc/status_json.h"
#include "agent/version.h"

namespace metal {
namespace {

void RecordStart(recorder::Recorder& recorder) {
  recorder::Entry entry(recorder::RecordKind::kStart);
  entry.Add("version", kAgentVersion).Add("pid", ::getpid());
  std::string boot = base::ReadFile("/proc/sys/kernel/random/boot_id").value_or("");
  recorder.Put(entry.Add("boot_id", boot.substr(0, boot.find('\n'))));
}

// Calls look(role, prober) for each role that is probed.
template <typename Look>
void ForEachProber(disk::DiskMonitor& disks, Look look) {
  for (const std::string& role : disks.roles()) {
    if (const auto prober = disks.FindProber(role); prober.ok()) look(role, **prober);
  }
}

std::vector<recorder::ProbeSample> TakeSamples(disk::DiskMonitor& disks) {
  std::vector<recorder::ProbeSample> samples;
  ForEachProber(disks, [&](const std::string& role, disk::Prober& prober) {
    const disk::RecentProbes recent = prober.TakeRecent();
    samples.push_back(
        {role, recent.read, recent.write, recent.errors, recent.late, recent.oldest_outstanding});
  });
  return samples;
}

std::vector<recorder::ProbeHistogram> HistogramsOf(disk::DiskMonitor& disks) {
  std::vector<recorder::ProbeHistogram> histograms;
  ForEachProber(disks, [&](const std::string& role, disk::Prober& prober) {
    for (const bool writes : {false, true})
      histograms.push_back({role, writes, prober.Buckets(writes)});
  });
  return histograms;
}

}  // namespace

FlightWatch::FlightWatch(std::shared_ptr<recorder::FaultTrigger> trigger,
                         std::shared_ptr<recorder::Recorder> recorder, disk::DiskMonitor& disks,
                         recorder::CaptureParts parts, recorder::DiagnosticsOptions options)
    : trigger_(std::move(trigger)),
      sampler_(std::move(recorder), [&disks] { return TakeSamples(disks); }),
      diagnostics_(std::move(parts), std::move(options)) {
  trigger_->SetDiagnostics(&diagnostics_);
}

absl::StatusOr<std::unique_ptr<FlightRecorder>> FlightRecorder::Start(
    const base::AgentConfig& config, recorder::ReadKernelLog kernel_log, base::Clock& clock) {
  std::unique_ptr<FlightRecorder> flight(new FlightRecorder(config, clock));
  flight->kernel_log_ = std::move(kernel_log);
  recorder::RecorderOptions options;
  options.path = base::JoinPath(config.recorder_directory, "ring");
  options.size = config.recorder_size;
  flight->recorder_ = std::make_shared<recorder::Recorder>(std::move(options), clock);
  RecordStart(*flight->recorder_);
  flight->control_ = std::make_shared<node::ControlWitness>(config.pg_data_dir, flight->recorder_);
  METAL_ASSIGN_OR_RETURN(auto log, observe::OpenEventLog(config.state_dir + "/events.db", clock));
  flight->events_ = std::make_shared<recorder::RecordedEvents>(
      std::move(log), flight->recorder_,
      [control = flight->control_, trigger = flight->trigger_](const observe::Event& event) {
        control->Note(event);
        trigger->Saw(event);
      });
  return flight;
}

absl::StatusOr<std::unique_ptr<node::OperationManager>> FlightRecorder::OpenOperations(
    observe::StatusBoard& board) {
  node::OperationManagerOptions options;
  options.path = config_.state_dir + "/operations.db";
  options.before_body = [control = control_](const std::string& kind, const std::string& name) {
    control->Before(kind, name);
  };
  options.after_body = [control = control_](const std::string& kind, const std::string& name) {
    control->After(kind, name);
  };
  return node::OperationManager::Open(std::move(options), clock_, board, *events_);
}

pg::SupervisorOptions FlightRecorder::SupervisorOptions(pg::SupervisorOptions options) const {
  options.role_for_launch = [control = control_, decide = std::move(options.role_for_launch)] {
    control->Look("before start", "postgres");
    return decide();
  };
  return options;
}

disk::DiskMonitorOptions FlightRecorder::DiskOptions(disk::DiskMonitorOptions options) const {
  options.counters = [recorder = recorder_](const disk::CounterChanges& changes) {
    node::RecordCounters(*recorder, changes);
  };
  options.kernel_lines = [recorder = recorder_](const disk::KernelLine& line) {
    node::RecordKernelLine(*recorder, line);
  };
  return options;
}

std::unique_ptr<FlightWatch> FlightRecorder::Watch(observe::StatusBoard& board,
                                                   pg::PostgresSupervisor& supervisor,
                                                   disk::DiskMonitor& disks) {
  recorder::CaptureParts parts{.config = config_,
                               .board = board,
                               .clock = clock_,
                               .events = events_,
                               .recorder = recorder_,
                               .postgres_log = supervisor.log_path(),
                               .status_json = rpc::StatusJson,
                               .histograms = [&disks] { return HistogramsOf(disks); },
                               .kernel_log = kernel_log_,
                               .before = [control = control_] { control->Look("capture", "node"); },
                               .versions = {}};
  recorder::DiagnosticsOptions options;
  options.directory = base::JoinPath(config_.recorder_directory, "captures");
  options.kept = config_.recorder_captures_kept;
  return std::make_unique<FlightWatch>(trigger_, recorder_, disks, std::move(parts),
                                       std::move(options));
}

}  // namespace metal
