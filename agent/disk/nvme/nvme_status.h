// What the statuses of NVMe commands say about a drive's health.
// Source: NVM Express Base Specification 2.0, "Status Field", and NVM Command Set
// Specification 1.0, "Media and Data Integrity Errors". Threading: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "agent/disk/faults/evidence.h"

namespace metal::disk {

enum class StatusKind : uint8_t {
  kSuccess,
  kRefused,     // the drive does not do what it was asked: tools that look for features cause these
  kAborted,     // the host gave the command up
  kUnreadable,  // data that the drive could not correct
  kUnwritten,   // data that the drive could not store
  kCorrupt,     // data that failed an end-to-end check
  kReadOnly,    // the drive or the namespace takes no writes
  kInternal,    // the drive's own failure
  kOther
};

// `field` is a status field as log pages have it: the phase bit, then SC, SCT, CRD, M and DNR.
NvmeStatus StatusOfField(uint16_t field);

StatusKind KindOfStatus(NvmeStatus status);

// "unrecovered read error (status 2/81h)"; a status without a known name has the numbers alone.
std::string StatusText(NvmeStatus status);

}  // namespace metal::disk
