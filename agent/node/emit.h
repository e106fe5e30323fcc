// See observe/emit.h.
#pragma once

#include "agent/observe/emit.h"

namespace metal::node {

using observe::Emit;

}  // namespace metal::node
