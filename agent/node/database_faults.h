// What known faults of the disks under the database forbid. Threading: pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "agent/observe/status_board.h"

namespace metal::node {

// The confirmed fault of this class on a disk of the database which no operator has acknowledged.
std::optional<observe::Fault> FaultUnderDatabase(const observe::NodeStatus& status,
                                                 std::string_view fault_class);

// A drive of the database says at present that it is too hot. What it reports of single moments
// (events, its own log) does not count: nothing tells when they are over.
bool DriveIsHot(const observe::NodeStatus& status);

// FAILED_PRECONDITION with reason TORN_WRITES when the settings switch full_page_writes off on
// drives that may tear a page: nothing else repairs one.
absl::Status CheckTornPages(const observe::NodeStatus& status,
                            const std::map<std::string, std::string>& settings);

}  // namespace metal::node
