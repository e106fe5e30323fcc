// FatalFault: which events of the event log are worth a capture.
// Threading: pure functions.
#pragma once

#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::recorder {

inline constexpr char kFatalFaultEvent[] = "disk.fault_confirmed";
inline constexpr char kCapturedEvent[] = "diagnostics.captured";

// The fault of an event that says that a fatal one is confirmed (disk.fault_confirmed with
// attribute fatal "true"; disk/faults/fault_desk.h).
std::optional<observe::Fault> FatalFaultOf(const observe::Event& event);

// The last fatal fault among `events`, oldest first, that nobody captured: younger than an hour,
// and no capture later than `pause` before it. Its agent ended too soon.
std::optional<observe::Fault> MissedFault(const std::vector<observe::Event>& events, absl::Time now,
                                          absl::Duration pause);

}  // namespace metal::recorder
