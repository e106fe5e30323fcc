// How the gate tells what happens: events and the fault "gate_down". Threading: as EventLog::Append
// and StatusBoard.
#pragma once

#include <map>
#include <string>

#include "agent/base/clock.h"
#include "agent/gate/door.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::gate {

void EmitGateEvent(observe::EventLog& events, observe::Severity severity, std::string type,
                   std::string subject, std::string message,
                   std::map<std::string, std::string> attributes = {});

// `subject`: "gate" or "gate.read_only". All references outlive what is made.
DoorNews DoorNewsOf(std::string subject, base::Clock& clock, observe::StatusBoard& board,
                    observe::EventLog& events);

}  // namespace metal::gate
