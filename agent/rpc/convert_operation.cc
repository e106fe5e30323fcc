#include "agent/rpc/convert_operation.h"

#include "agent/base/status.h"
#include "agent/rpc/convert_status.h"

namespace metal::rpc {
namespace {

v1::OperationState StateOf(node::OperationState state) {
  switch (state) {
    case node::OperationState::kPending:
      return v1::OPERATION_STATE_PENDING;
    case node::OperationState::kRunning:
      return v1::OPERATION_STATE_RUNNING;
    case node::OperationState::kSucceeded:
      return v1::OPERATION_STATE_SUCCEEDED;
    case node::OperationState::kFailed:
      return v1::OPERATION_STATE_FAILED;
    case node::OperationState::kCancelled:
      return v1::OPERATION_STATE_CANCELLED;
  }
  return v1::OPERATION_STATE_UNSPECIFIED;
}

void ErrorToProto(const absl::Status& error, v1::OperationError* out) {
  out->set_code(static_cast<int32_t>(error.code()));
  out->set_message(std::string(error.message()));
  if (auto reason = base::GetReason(error)) {
    out->set_reason(reason->reason);
    out->mutable_metadata()->insert(reason->metadata.begin(), reason->metadata.end());
  }
}

}  // namespace

void ToProto(const node::Operation& operation, v1::Operation* out) {
  out->set_name(operation.name);
  out->set_kind(operation.spec.kind);
  out->set_subject(operation.spec.subject);
  out->set_state(StateOf(operation.state));
  out->set_request_id(operation.spec.request.request_id);
  out->set_caller(operation.spec.request.caller);
  out->set_term(operation.spec.term);
  auto* progress = out->mutable_progress();
  progress->set_phase(operation.progress.phase);
  progress->set_done_bytes(static_cast<int64_t>(operation.progress.done_bytes));
  progress->set_total_bytes(static_cast<int64_t>(operation.progress.total_bytes));
  progress->set_bytes_per_second(operation.progress.bytes_per_second);
  if (operation.progress.eta != absl::InfiniteDuration()) {
    *progress->mutable_eta() = ToProto(operation.progress.eta);
  }
  *progress->mutable_phase_elapsed() = ToProto(operation.progress.phase_elapsed);
  *out->mutable_create_time() = ToProto(operation.create_time);
  *out->mutable_update_time() = ToProto(operation.update_time);
  if (operation.done()) *out->mutable_end_time() = ToProto(operation.end_time);
  if (!operation.error.ok()) ErrorToProto(operation.error, out->mutable_error());
  out->set_result_name(operation.result.name);
  out->mutable_result()->insert(operation.result.values.begin(), operation.result.values.end());
  out->mutable_parameters()->insert(operation.spec.parameters.begin(),
                                    operation.spec.parameters.end());
  out->set_revision(operation.revision);
}

}  // namespace metal::rpc
