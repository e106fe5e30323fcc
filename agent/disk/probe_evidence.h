// What the probes' verdict of one target hands to the fault desk. Threading: pure functions.
#pragma once

#include <optional>

#include "agent/disk/disk_report.h"
#include "agent/disk/faults/evidence.h"

namespace metal::disk {

// nullopt: the state speaks for no fault.
std::optional<FaultClass> FaultClassOf(ProbeState state, ProbeFault fault);
// Of the state that `target` is in now. Nullopt also where it is in one because of errors that are
// events by themselves (ErrorEvidenceOf).
std::optional<Evidence> EvidenceOf(const TargetView& target);
// Of `count` errors since the last look. Nullopt: what they are of is a state.
std::optional<Evidence> ErrorEvidenceOf(const TargetView& target, uint64_t count);
// That what `former` said has passed; or that its witness, now in `state`, cannot say so.
Evidence Withdrawn(Evidence former, ProbeState state);

}  // namespace metal::disk
