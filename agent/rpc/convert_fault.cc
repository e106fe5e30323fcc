// A fault for clients; of a disk's with what speaks for it.
#include "absl/strings/ascii.h"
#include "agent/rpc/convert_status.h"

namespace metal::rpc {
namespace {

void EvidenceToProto(const observe::FaultEvidence& evidence, v1::FaultEvidence* out) {
  v1::FaultWitness witness = v1::FAULT_WITNESS_UNSPECIFIED;
  if (v1::FaultWitness_Parse("FAULT_WITNESS_" + absl::AsciiStrToUpper(evidence.witness),
                             &witness)) {
    out->set_witness(witness);
  }
  out->set_text(evidence.text);
  *out->mutable_seen_time() = ToProto(evidence.time);
  out->set_kernel_line(evidence.kernel_line);
  v1::ProbeOutcome outcome = v1::PROBE_OUTCOME_UNSPECIFIED;
  if (v1::ProbeOutcome_Parse("PROBE_OUTCOME_" + absl::AsciiStrToUpper(evidence.probe_outcome),
                             &outcome)) {
    out->set_probe_outcome(outcome);
  }
  if (evidence.outstanding) *out->mutable_outstanding() = ToProto(*evidence.outstanding);
  if (evidence.error_number) out->set_error_number(*evidence.error_number);
  if (evidence.nvme_status_type) {
    out->set_nvme_status_type(static_cast<int32_t>(*evidence.nvme_status_type));
  }
  if (evidence.nvme_status_code) {
    out->set_nvme_status_code(static_cast<int32_t>(*evidence.nvme_status_code));
  }
  if (evidence.sector) out->set_sector(static_cast<int64_t>(*evidence.sector));
  if (evidence.delta) out->set_delta(*evidence.delta);
}

void DetailToProto(const observe::Fault& fault, v1::DiskFault* out) {
  const observe::DiskFaultDetail& detail = *fault.disk;
  v1::DiskFaultClass fault_class = v1::DISK_FAULT_CLASS_UNSPECIFIED;
  if (v1::DiskFaultClass_Parse("DISK_FAULT_CLASS_" + absl::AsciiStrToUpper(fault.fault_class),
                               &fault_class)) {
    out->set_disk_fault_class(fault_class);
  }
  v1::FaultReaction reaction = v1::FAULT_REACTION_UNSPECIFIED;
  if (v1::FaultReaction_Parse("FAULT_REACTION_" + absl::AsciiStrToUpper(detail.reaction),
                              &reaction)) {
    out->set_reaction(reaction);
  }
  out->set_device(detail.device);
  out->set_serial(detail.serial);
  out->set_path(detail.path);
  for (const std::string& role : detail.roles) out->add_roles(role);
  out->set_confidence(detail.confirmed ? v1::FAULT_CONFIDENCE_CONFIRMED
                                       : v1::FAULT_CONFIDENCE_SUSPECTED);
  out->set_fatal(detail.fatal);
  *out->mutable_last_seen_time() = ToProto(detail.last_seen);
  for (const observe::FaultEvidence& each : detail.evidence) {
    EvidenceToProto(each, out->add_evidence());
  }
  for (const std::string& action : detail.actions) out->add_actions(action);
  if (!detail.acknowledged) return;
  out->mutable_acknowledgement()->set_caller(detail.acknowledged->caller);
  out->mutable_acknowledgement()->set_reason(detail.acknowledged->reason);
  *out->mutable_acknowledgement()->mutable_time() = ToProto(detail.acknowledged->time);
}

}  // namespace

void ToProto(const observe::Fault& fault, v1::Fault* out) {
  out->set_fault_class(fault.fault_class);
  out->set_subject(fault.subject);
  out->set_severity(ToProto(fault.severity));
  out->set_message(fault.message);
  if (fault.since != absl::InfinitePast() && fault.since != absl::InfiniteFuture()) {
    *out->mutable_since_time() = ToProto(fault.since);
  }
  if (fault.disk != nullptr) DetailToProto(fault, out->mutable_disk());
}

}  // namespace metal::rpc
