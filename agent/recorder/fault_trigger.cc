#include "agent/recorder/fault_trigger.h"

namespace metal::recorder {

void FaultTrigger::Saw(const observe::Event& event) {
  if (event.type != "disk.fault_confirmed") return;
  const auto fatal = event.attributes.find("fatal");
  const auto fault_class = event.attributes.find("class");
  if (fatal == event.attributes.end() || fatal->second != "true") return;
  base::MutexLock lock(mutex_);
  if (diagnostics_ == nullptr) return;
  observe::Fault fault;
  fault.fault_class = fault_class == event.attributes.end() ? "fault" : fault_class->second;
  fault.subject = event.subject;
  fault.severity = event.severity;
  fault.message = event.message;
  fault.since = event.time;
  diagnostics_->OnFatalFault(fault);
}

void FaultTrigger::SetDiagnostics(Diagnostics* diagnostics) {
  base::MutexLock lock(mutex_);
  diagnostics_ = diagnostics;
}

}  // namespace metal::recorder
