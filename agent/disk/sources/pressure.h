// How much of the time the host's processes wait (pressure stall information): context for
// a verdict, never one of its own.
// Source: the kernel's Documentation/accounting/psi.rst.
// Threading: pure functions; ReadPressure reads /proc, which waits for nothing.
#pragma once

#include <optional>
#include <string_view>

#include "agent/disk/inventory.h"
#include "agent/observe/status_board.h"

namespace metal::disk {

// The text of /proc/pressure/io, memory or cpu, or of a cgroup's io.pressure. nullopt when there is
// no line "some".
std::optional<observe::Pressure> ParsePressure(std::string_view text);

// Of the host; without a time, which is the caller's. What the kernel does not have stays unset.
observe::PressureSection ReadPressure(const SysRoots& roots);

}  // namespace metal::disk
