// The published status as JSON, for captures. Threading: pure function.
#pragma once

#include <string>

#include "agent/observe/status_board.h"
#include "agent/recorder/capture.h"

namespace metal::rpc {

// A v1.NodeStatus as protobuf JSON with the names of the proto, as `metalctl -o json status` prints
// it, each text as `clean` gives it. Ages are as of now.
std::string StatusJson(const observe::NodeStatus& status, const recorder::CleanText& clean);

}  // namespace metal::rpc
