// What a refused rewind says about the node's directory: one list for the agent, which may go over
// to a copy by itself (on_failure), and for `metalctl shard recover`. Threading: pure function.
#pragma once

#include <algorithm>
#include <iterator>
#include <string_view>

#include "absl/status/status.h"
#include "agent/base/status.h"

namespace metal::base {

// Of proto/metal/agent/v1/error_reason.proto.
inline constexpr std::string_view kNoRewindHelps[] = {
    "REWIND_REFUSED", "WAL_MISSING", "NO_SPACE", "HISTORY_DIVERGED", "DATA_DIRECTORY_INCOMPLETE"};

// True when no rewind will help this node, now or later, and a copy of another one may. Not when
// the source is to blame (REWIND_SOURCE), nor when the node has WAL of the source's own timeline
// that the source lacks (DIVERGED): nobody knows whose fault that is, and it may be the only copy
// of what clients were promised. `failed`: of a rewind; another request gives some of these reasons
// for what says nothing about the directory.
inline bool NoRewindHelps(const absl::Status& failed) {
  const auto reason = GetReason(failed);
  return reason && std::ranges::find(kNoRewindHelps, reason->reason) != std::end(kNoRewindHelps);
}

}  // namespace metal::base
