#include "agent/recorder/fault_trigger.h"

#include "agent/recorder/fatal_fault.h"

namespace metal::recorder {

void FaultTrigger::Saw(const observe::Event& event) {
  const auto fault = FatalFaultOf(event);
  if (!fault) return;
  base::MutexLock lock(mutex_);
  if (diagnostics_ != nullptr) diagnostics_->OnFatalFault(*fault);
}

void FaultTrigger::SetDiagnostics(Diagnostics* diagnostics) {
  base::MutexLock lock(mutex_);
  diagnostics_ = diagnostics;
}

}  // namespace metal::recorder
