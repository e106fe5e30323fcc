// The one place that maps absl::Status to grpc::Status. A reason (base/status.h) becomes
// google.rpc.ErrorInfo with domain "metal.agent" in the status details, in the standard wire form,
// so that any client library decodes it. Threading: pure functions.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "agent/base/status.h"
#include "grpcpp/support/status.h"

namespace metal::rpc {

grpc::Status ToGrpc(const absl::Status& status);

// A serialized google.rpc.Status with at most one google.rpc.ErrorInfo detail.
std::string EncodeErrorDetails(const absl::Status& status, const base::ErrorReason& reason);

}  // namespace metal::rpc
