// How much of the time the host's processes wait for I/O (pressure stall information): context for
// a verdict, never one of its own.
// Source: the kernel's Documentation/accounting/psi.rst.
// Threading: pure functions.
#pragma once

#include <optional>
#include <string_view>

namespace metal::disk {

// Shares of the last ten and sixty seconds, 0 to 1.
struct IoPressure {
  double some_10s = 0, some_60s = 0;  // at least one process waited
  double full_10s = 0, full_60s = 0;  // all that were not idle did
};

// The text of /proc/pressure/io, or of a cgroup's io.pressure. nullopt when there is no line
// "some".
std::optional<IoPressure> ParseIoPressure(std::string_view text);

}  // namespace metal::disk
