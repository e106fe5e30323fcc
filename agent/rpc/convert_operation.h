// node::Operation → metal.agent.v1.Operation. Threading: pure functions.
#pragma once

#include "agent/node/operations/operation.h"
#include "metal/agent/v1/operation.pb.h"

namespace metal::rpc {

void ToProto(const node::Operation& operation, metal::agent::v1::Operation* out);

}  // namespace metal::rpc
