#include "agent/disk/faults/evidence.h"

namespace metal::disk {

std::string_view FaultClassName(FaultClass fault_class) {
  static constexpr std::array<std::string_view, kFaultClasses> kNames = {
      "media_error", "write_error",         "fsync_error",
      "read_only",   "spare_low",           "wearing_out",
      "unreliable",  "overheating",         "controller_reset",
      "gone",        "link_degraded",       "slow",
      "stalled",     "corruption",          "lost_write",
      "torn_writes", "filesystem_shutdown", "metadata_retry",
      "full",        "wrong_device",        "firmware_clock",
      "throttled"};
  return kNames.at(static_cast<size_t>(fault_class));
}

std::string_view WitnessName(Witness witness) {
  static constexpr std::array<std::string_view, kWitnesses> kNames = {
      "probe",         "kernel_log", "uevent",     "sysfs",        "smart_log",
      "error_log",     "vendor_log", "filesystem", "postgres_log", "checksums",
      "slow_detector", "peers",      "inventory"};
  return kNames.at(static_cast<size_t>(witness));
}

std::string_view ProbeResultName(ProbeResult result) {
  static constexpr std::array<std::string_view, kProbeResults> kNames = {
      "unanswered", "late", "failed", "short", "other_bytes", "old_bytes"};
  return kNames.at(static_cast<size_t>(result));
}

EvidenceSource SourceOf(Witness witness) {
  switch (witness) {
    case Witness::kProbe:
      return EvidenceSource::kProbes;
    case Witness::kKernelLog:
    case Witness::kUevent:
    case Witness::kSysfs:
    case Witness::kFilesystem:
      return EvidenceSource::kKernel;
    case Witness::kSmartLog:
    case Witness::kErrorLog:
    case Witness::kVendorLog:
    case Witness::kInventory:
      return EvidenceSource::kDrive;
    case Witness::kPostgresLog:
    case Witness::kChecksums:
      return EvidenceSource::kPostgres;
    case Witness::kSlowDetector:
      return EvidenceSource::kDetector;
    case Witness::kPeers:
      return EvidenceSource::kPeers;
  }
  return EvidenceSource::kProbes;
}

}  // namespace metal::disk
