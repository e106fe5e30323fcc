#include "agent/recorder/fatal_fault.h"

namespace metal::recorder {
namespace {

constexpr absl::Duration kStillOfUse = absl::Hours(1);

}  // namespace

std::optional<observe::Fault> FatalFaultOf(const observe::Event& event) {
  if (event.type != kFatalFaultEvent) return std::nullopt;
  const auto fatal = event.attributes.find("fatal");
  const auto fault_class = event.attributes.find("class");
  if (fatal == event.attributes.end() || fatal->second != "true") return std::nullopt;
  observe::Fault fault;
  fault.fault_class = fault_class == event.attributes.end() ? "fault" : fault_class->second;
  fault.subject = event.subject;
  fault.severity = event.severity;
  fault.message = event.message;
  fault.since = event.time;
  return fault;
}

std::optional<observe::Fault> MissedFault(const std::vector<observe::Event>& events, absl::Time now,
                                          absl::Duration pause) {
  std::optional<observe::Fault> fault;
  uint64_t fault_id = 0, captured_id = 0;
  absl::Time captured = absl::InfinitePast();
  for (const observe::Event& event : events) {
    if (event.type == kCapturedEvent) {
      captured = event.time;
      captured_id = event.id;
    } else if (auto found = FatalFaultOf(event)) {
      fault = std::move(found);
      fault_id = event.id;
    }
  }
  if (!fault || now - fault->since > kStillOfUse) return std::nullopt;
  // Both: the clock may have been set between them.
  if (captured_id > fault_id || captured >= fault->since - pause) return std::nullopt;
  return fault;
}

}  // namespace metal::recorder
