#include "agent/disk/faults/acknowledgement.h"

#include <algorithm>

namespace metal::disk {
namespace {

constexpr absl::Duration kRecent = absl::Minutes(10);

}  // namespace

bool Outgrows(const DiskFault& fault, const Acknowledgement& acknowledged) {
  if (fault.confirmed && !acknowledged.confirmed) return true;
  return std::ranges::any_of(fault.evidence, [&](const Evidence& each) {
    if (!acknowledged.witnesses.contains(std::string(WitnessName(each.witness)))) return true;
    return TellsOfAnEvent(each) && each.time > acknowledged.time;
  });
}

bool IsLive(const DiskFault& fault, absl::Time now) {
  return std::ranges::any_of(fault.evidence, [&](const Evidence& each) {
    return !TellsOfAnEvent(each) || now - each.time < kRecent;
  });
}

}  // namespace metal::disk
