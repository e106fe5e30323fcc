// Puts the flight recorder together with what feeds it and what reads it: a part of the composition
// root. Threading: main's thread alone.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/config.h"
#include "agent/disk/disk_monitor.h"
#include "agent/node/control_witness.h"
#include "agent/node/operations/operations.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "agent/pg/supervisor.h"
#include "agent/recorder/diagnostics.h"
#include "agent/recorder/fault_trigger.h"
#include "agent/recorder/kernel_log.h"
#include "agent/recorder/probe_sampler.h"
#include "agent/recorder/recorder.h"

namespace metal {

// What records and captures while the node is up.
class FlightWatch {
 public:
  FlightWatch(std::shared_ptr<recorder::FaultTrigger> trigger,
              std::shared_ptr<recorder::Recorder> recorder, disk::DiskMonitor& disks,
              recorder::CaptureParts parts, recorder::DiagnosticsOptions options);
  ~FlightWatch() { trigger_->SetDiagnostics(nullptr); }
  FlightWatch(const FlightWatch&) = delete;
  FlightWatch& operator=(const FlightWatch&) = delete;

  recorder::Diagnostics& diagnostics() { return diagnostics_; }

 private:
  const std::shared_ptr<recorder::FaultTrigger> trigger_;
  recorder::ProbeSampler sampler_;
  recorder::Diagnostics diagnostics_;
};

class FlightRecorder {
 public:
  // Starts the recorder and opens the event log (its errors are those of OpenEventLog; a recorder
  // that cannot write is none). `config` and `clock` outlive this.
  // `kernel_log`: of recorder::KernelLogReader.
  static absl::StatusOr<std::unique_ptr<FlightRecorder>> Start(const base::AgentConfig& config,
                                                               recorder::ReadKernelLog kernel_log,
                                                               base::Clock& clock);

  // The event log, each event of which is recorded.
  observe::EventLog& events() { return *events_; }
  // With a record of pg_control around what moves a role or the server. `board` outlives it.
  absl::StatusOr<std::unique_ptr<node::OperationManager>> OpenOperations(
      observe::StatusBoard& board);
  // With a record of pg_control before each start of the server.
  pg::SupervisorOptions SupervisorOptions(pg::SupervisorOptions options) const;
  // With a record of what drives' counters do, and of the kernel's lines that are no events.
  disk::DiskMonitorOptions DiskOptions(disk::DiskMonitorOptions options) const;
  // Records the probes' latencies, and takes captures, while the answer lives. All outlive it.
  std::unique_ptr<FlightWatch> Watch(observe::StatusBoard& board,
                                     pg::PostgresSupervisor& supervisor, disk::DiskMonitor& disks);

 private:
  FlightRecorder(const base::AgentConfig& config, base::Clock& clock)
      : config_(config), clock_(clock) {}

  const base::AgentConfig& config_;
  base::Clock& clock_;
  recorder::ReadKernelLog kernel_log_;
  const std::shared_ptr<recorder::FaultTrigger> trigger_ =
      std::make_shared<recorder::FaultTrigger>();
  std::shared_ptr<recorder::Recorder> recorder_;
  std::shared_ptr<node::ControlWitness> control_;
  std::shared_ptr<observe::EventLog> events_;
};

}  // namespace metal
