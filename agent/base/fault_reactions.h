// The classes of faults that [disk.reactions] may name, with what each asks for by itself. The
// fault table (agent/disk/faults/fault_table.cc) says what they mean; a test of it compares the
// two. Threading: constant data.
#pragma once

#include <string_view>

namespace metal::base {

struct FaultReaction {
  std::string_view fault_class, reaction;
};

inline constexpr FaultReaction kFaultReactions[] = {
    {"media_error", "drain"},
    {"write_error", "demote"},
    {"fsync_error", "demote"},
    {"read_only", "demote"},
    {"spare_low", "drain"},
    {"wearing_out", "observe"},
    {"unreliable", "drain"},
    {"overheating", "observe"},
    {"controller_reset", "drain"},
    {"gone", "demote"},
    {"link_degraded", "observe"},
    {"slow", "drain"},
    {"stalled", "demote"},
    {"corruption", "drain"},
    {"lost_write", "drain"},
    {"torn_writes", "observe"},
    {"filesystem_shutdown", "demote"},
    {"metadata_retry", "observe"},
    {"full", "observe"},
    {"wrong_device", "observe"},
    {"firmware_clock", "drain"},
    {"throttled", "observe"},
};
inline constexpr std::string_view kReactions = "observe, drain, demote";

}  // namespace metal::base
