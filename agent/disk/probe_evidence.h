// What the probes' verdict of one target hands to the fault desk. Threading: pure functions.
#pragma once

#include <optional>

#include "agent/disk/disk_report.h"
#include "agent/disk/faults/evidence.h"

namespace metal::disk {

// nullopt: the state speaks for no fault.
std::optional<FaultClass> FaultClassOf(ProbeState state, ProbeFault fault);
// Of the state that `target` is in now.
std::optional<Evidence> EvidenceOf(const TargetView& target);
// That what `former` said has passed.
Evidence Withdrawn(Evidence former);

}  // namespace metal::disk
