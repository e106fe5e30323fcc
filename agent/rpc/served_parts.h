// What the services serve, as main has made it. Threading: plain references.
#pragma once

#include "agent/base/clock.h"
#include "agent/base/config.h"
#include "agent/node/node.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "agent/recorder/diagnostics.h"

namespace metal::rpc {

// All outlive the services.
struct ServedParts {
  const base::AgentConfig& config;
  node::Node& node;
  observe::StatusBoard& board;
  observe::EventLog& events;
  recorder::Diagnostics& diagnostics;
  base::Clock& clock;
};

}  // namespace metal::rpc
